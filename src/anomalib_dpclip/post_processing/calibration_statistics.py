"""Statistics of a data set that a calibration needs: four numbers an image, and the pixels' histograms, however many."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics.aggregation import CatMetric

from anomalib_dpclip.metrics.pixel_histogram import PixelHistogram

UNKNOWN_LABEL = -1


class ImageStatistics(NamedTuple):
    """One value an image, ``(N,)``: lowest and highest map value, detection score, label (or `UNKNOWN_LABEL`)."""

    map_min: Tensor
    map_max: Tensor
    detection: Tensor
    label: Tensor


class CalibrationStatistics(nn.Module):
    """Collects the statistics of batches.

    Args:
        source: What the images are of, such as ``Surfaces/weave``; empty if nobody knows.
        judged: What is judged, ``(H, W)`` bool; other pixels count for nothing. Default: all.
    """

    def __init__(self, source: str = "", judged: Tensor | None = None) -> None:
        super().__init__()
        self.of = f" of {source}" if source else ""  # to follow "images" in a sentence
        self.rows = CatMetric(nan_strategy="disable")
        self.pixels = PixelHistogram()
        self.judged = self.pixels.judged = judged

    @torch.no_grad()
    def update(
        self, anomaly_map: Tensor, detection: Tensor, label: Tensor | None, mask: Tensor | None, has_mask: Tensor | None = None
    ) -> None:
        """Add a batch: raw maps ``(B, H, W)`` in [0, 1], detection scores ``(B,)``, and what is known of the truth.

        That are labels 0 or 1 ``(B,)``, masks of the maps' size, and which images have one ``(B,)`` bool, by default all.
        """
        values = anomaly_map.flatten(1) if self.judged is None else anomaly_map[:, self.judged]
        kind = torch.full_like(detection, UNKNOWN_LABEL) if label is None else label
        self.rows.update(torch.stack([part.float() for part in (*values.aminmax(dim=1), detection, kind)], dim=1))
        self.pixels.update(anomaly_map, mask, has_mask)

    def images(self) -> ImageStatistics:
        """The values of each image, of all processes, on the CPU."""
        rows = self.rows.compute()
        if not isinstance(rows, Tensor):
            rows = torch.cat(rows) if rows else torch.empty(0, 4)
        return ImageStatistics(*rows.reshape(-1, 4).cpu().unbind(1))
