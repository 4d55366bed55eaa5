"""Ranges and control points as plain tensors, which an exported file can hold and have replaced."""

from typing import NamedTuple

import torch
from torch import Tensor

from anomalib_dpclip.data_sets.domain import Domain
from anomalib_dpclip.post_processing.image_score import image_score
from anomalib_dpclip.post_processing.normalisation import separate_control_points


class Scale(NamedTuple):
    """Ranges and control points of one data set.

    Attributes:
        map_range: Lowest and highest value of the raw maps ``(2,)``.
        detection_range: Lowest and highest detection score ``(2,)``.
        map_knots: Control points of the maps' normalisation ``(5,)``; the third is the pixel threshold.
        score_knots: Control points of the fused image scores' normalisation ``(5,)``; the third is the image threshold.
    """

    map_range: Tensor
    detection_range: Tensor
    map_knots: Tensor
    score_knots: Tensor

    def fuse(self, peak: Tensor, detection: Tensor, domain: Domain) -> Tensor:
        """Image scores ``(B,)`` of peaks of maps ``(B,)`` and detection scores ``(B,)``, see `image_score`."""
        return image_score(peak.float(), detection.float(), self.map_range, self.detection_range, domain)

    def with_thresholds(self, image: float, pixel: float) -> "Scale":
        """The same with other thresholds: however often they are moved, the other points stay.

        Args:
            image: Threshold on the fused score.
            pixel: Threshold on the raw map.
        """
        moved = []
        for points, value in ((self.map_knots, pixel), (self.score_knots, image)):
            lowest, low, _, high, highest = points.tolist()
            moved.append(separate_control_points(lowest, low, value, high, highest))
        return self._replace(map_knots=moved[0], score_knots=moved[1])

    def packed(self) -> Tensor:
        """All of it as one vector ``(14,)``."""
        return torch.cat(self)


def unpacked(values: Tensor) -> Scale:
    """The scale that a vector ``(14,)`` holds."""
    return Scale(*values.split((2, 2, 5, 5)))
