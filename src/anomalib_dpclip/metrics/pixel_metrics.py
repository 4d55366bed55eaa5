"""Pixel metrics for anomalib's `Evaluator`, several of them reading one histogram."""

from collections.abc import Callable

import torch
from anomalib.data import Batch
from anomalib.metrics import AnomalibMetric
from torchmetrics import Metric

from anomalib_dpclip.metrics.pixel_histogram import PixelCounts, PixelHistogram


class PixelMetric(AnomalibMetric, Metric):
    """One metric of the pixel counts.

    Batches without maps or masks are passed over, and so are images that ``batch.has_mask`` is false for: the metric describes
    the images that have both, NaN if none has.

    Args:
        name: What to log it as, e.g. ``"pixel_AUROC"``.
        function: From counts to the metric; a module's function, so that a model that holds the metric can be pickled.
        reads: Another pixel metric whose histogram to share: each batch is counted once, by whichever of them is updated
            with it first. By default the metric has one of its own.
    """

    full_state_update = False

    def __init__(
        self,
        name: str,
        function: Callable[[PixelCounts], float],
        reads: "PixelMetric | None" = None,
    ) -> None:
        super().__init__(fields=("anomaly_map", "gt_mask"))
        self.name = name
        self.function = function
        self.histogram: PixelHistogram = PixelHistogram() if reads is None else reads.histogram
        self._reader = self.histogram.add_reader()

    def update(self, batch: Batch) -> None:
        """Add a batch with ``anomaly_map`` and ``gt_mask``, both ``(B, H, W)``; see `count_pixels`."""
        if self.histogram.note_batch(self._reader):
            self.histogram.update(batch.anomaly_map, batch.gt_mask, getattr(batch, "has_mask", None))

    def compute(self) -> torch.Tensor:
        """The metric, in [0, 1] or NaN, ``()``."""
        # The histogram sums itself over the processes, once for all metrics that read it (it keeps what it computed).
        return torch.tensor(self.function(self.histogram.compute()), device=self.device)

    def reset(self) -> None:
        """Forget all batches."""
        super().reset()
        self.histogram.reset()
