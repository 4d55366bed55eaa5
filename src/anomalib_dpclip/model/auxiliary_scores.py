"""Scores of the auxiliary images while the adapters learn, from which their default calibration is made."""

import torch
from torch import Tensor

from anomalib_dpclip.model.calibration import CalibrationStatistics


class AuxiliaryScores:
    """Remembers batches on their device, and counts them on the host now and then: it must not wait in every step.

    Args:
        interval: Batches between two counts.
        device: Of the statistics.
    """

    def __init__(self, interval: int, device: torch.device) -> None:
        self.interval = interval
        self._statistics = CalibrationStatistics().to(device)
        self._uncounted: list[tuple[Tensor, ...]] = []

    def add(self, maps: Tensor, scores: Tensor, label: Tensor, masks: Tensor) -> None:
        """Remember a batch.

        Args:
            maps: Anomaly maps ``(B, rows, columns)`` on the token grid: a resized map has the same range,
                and costs 190 times as much.
            scores: Detection scores ``(B,)``.
            label: 0 (normal) or 1 (anomalous) ``(B,)``.
            masks: Ground truth ``(B, rows, columns)``.
        """
        self._uncounted.append((maps, scores, label, masks))
        if len(self._uncounted) >= self.interval:
            self.statistics()

    def statistics(self) -> CalibrationStatistics:
        """Statistics of all batches so far."""
        uncounted, self._uncounted = self._uncounted, []
        if uncounted:
            self._statistics.update(*(torch.cat(values) for values in zip(*uncounted, strict=True)))
        return self._statistics
