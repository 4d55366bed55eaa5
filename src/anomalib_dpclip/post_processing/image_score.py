"""The image score: the map's peak and the detection score, each min-max scaled over a data set, averaged.

DP-CLIP (Feature Decoupling and Channel Purification), inference: ``0.5 max(map) + 0.5 score``, both min-max
normalised over a class's test set.
"""

from torch import Tensor

from anomalib_dpclip.data_sets.domain import Domain

DETECTION_WEIGHT: dict[Domain, float] = {"industrial": 0.5, "medical": 0.0}
"""Share of the detection score in the image score; the rest is the map's peak (DP-CLIP, inference)."""

MIN_SPREAD = 1e-6
"""Least spread of a data set's scores: those of one image have none."""


def min_max(values: Tensor, bounds: Tensor) -> Tensor:
    """Scale values of any shape so that ``bounds`` ``(2,)`` become 0 and 1."""
    return (values - bounds[0]) / (bounds[1] - bounds[0]).clamp_min(MIN_SPREAD)


def image_score(peak: Tensor, detection: Tensor, map_range: Tensor, detection_range: Tensor, domain: Domain) -> Tensor:
    """``(1 - w) minmax(peak) + w minmax(detection)`` (DP-CLIP, inference).

    Args:
        peak: Highest value of each raw map ``(B,)``.
        detection: Detection scores ``(B,)``.
        map_range: Lowest and highest value of the data set's maps ``(2,)``.
        detection_range: Lowest and highest detection score of the data set ``(2,)``.
        domain: ``"medical"`` uses the peak alone.

    Returns:
        Scores ``(B,)``, in [0, 1] on the images that set the ranges and wider on others.
    """
    weight = DETECTION_WEIGHT[domain]
    return (1 - weight) * min_max(peak, map_range) + weight * min_max(detection, detection_range)
