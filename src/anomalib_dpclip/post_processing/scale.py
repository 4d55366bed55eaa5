"""What raw maps and scores become on a data set: the fused image score, and values in [0, 1] with the threshold at 0.5."""

from typing import NamedTuple

import torch
from torch import Tensor

from anomalib_dpclip.data_sets.domain import Domain

DETECTION_WEIGHT: dict[Domain, float] = {"industrial": 0.5, "medical": 0.0}
"""Share of the detection score in the image score by the text; the rest is the map's peak (DP-CLIP, inference)."""

MIN_SPREAD = 1e-6
"""Least spread of a data set's scores: those of one image have none."""

NORMALISED_CONTROL_POINTS = (0.0, 0.05, 0.5, 0.95, 1.0)
"""Where the lowest possible, lowest seen, threshold, highest seen and highest possible value go."""

MIN_GAP = 1e-6
"""Least distance between control points, on the scale of [0, 1]."""


class Scale(NamedTuple):
    """Ranges and control points of one data set, as tensors that an exported file can hold and have replaced.

    Attributes:
        map_range: Lowest and highest value of the raw maps ``(2,)``.
        detection_range: Lowest and highest detection score ``(2,)``.
        map_knots: Control points of the maps' normalisation ``(5,)``; the third is the pixel threshold.
        score_knots: Control points of the fused image scores' normalisation ``(5,)``; the third is the image threshold.
        detection_weight: Share of the detection score in the image score ``(1,)``.
    """

    map_range: Tensor
    detection_range: Tensor
    map_knots: Tensor
    score_knots: Tensor
    detection_weight: Tensor

    def fuse(self, peak: Tensor, detection: Tensor) -> Tensor:
        """The `image_score` in these ranges."""
        return image_score(peak.float(), detection.float(), self.map_range, self.detection_range, self.detection_weight)

    def with_thresholds(self, image: float, pixel: float) -> "Scale":
        """The same with other thresholds; however often they are moved, the other points stay."""
        moved = []
        for points, value in ((self.map_knots, pixel), (self.score_knots, image)):
            lowest, low, _, high, highest = points.tolist()
            moved.append(separate_control_points(lowest, low, value, high, highest))
        return self._replace(map_knots=moved[0], score_knots=moved[1])

    def packed(self) -> Tensor:
        """All of it as one vector ``(15,)``."""
        return torch.cat(self)


def unpacked(values: Tensor) -> Scale:
    """The scale that a vector ``(15,)`` holds."""
    return Scale(*values.split((2, 2, 5, 5, 1)))


def image_score(peak: Tensor, detection: Tensor, map_range: Tensor, detection_range: Tensor, weight: Tensor | float) -> Tensor:
    """``(1 - w) minmax(peak) + w minmax(detection)`` (DP-CLIP, Feature Decoupling and Channel Purification, inference).

    Of peaks of raw maps and detection scores ``(B,)``, in ranges ``(2,)``, or ``(2, B)`` where each image has its own: scores
    ``(B,)``, in [0, 1] on the images that set the ranges and wider on others.
    """
    peak, detection = (
        (values - bounds[0]) / (bounds[1] - bounds[0]).clamp_min(MIN_SPREAD)
        for values, bounds in ((peak, map_range), (detection, detection_range))
    )
    return (1 - weight) * peak + weight * detection


def piecewise_linear(values: Tensor, points: Tensor) -> Tensor:
    """Increasing map through ``points`` (5,) -> `NORMALISED_CONTROL_POINTS`.

    Unlike a clamped linear scaling it makes no ties beyond the range of the data set, so ranking metrics stay what they were,
    up to single precision: beyond that range values closer than about 1e-6 may become equal.
    """
    result, places = torch.zeros_like(values), NORMALISED_CONTROL_POINTS
    for index in range(len(places) - 1):
        low, high = points[index], points[index + 1]
        # Shares are clamped to their segment: a sum of monotone terms stays monotone when rounded.
        result = result + (places[index + 1] - places[index]) * ((values - low) / (high - low)).clamp(0, 1)
    return result


def separate_control_points(lowest: float, low: float, threshold: float, high: float, highest: float) -> Tensor:
    """Control points (5,) in ascending order and apart by at least `MIN_GAP` of the whole range; the threshold moves last."""
    gap = MIN_GAP * (highest - lowest)
    middle = min(max(threshold, lowest + 2 * gap), highest - 2 * gap)
    below = min(max(low, lowest + gap), middle - gap)
    above = max(min(high, highest - gap), middle + gap)
    return torch.tensor([lowest, below, middle, above, highest])
