"""Thresholds on image scores and raw maps: of the best F1 score, or of a false-alarm rate that holds for new images."""

import logging
import math
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from anomalib_dpclip.metrics.functional import count_scores, f1_curve, f1_threshold
from anomalib_dpclip.post_processing import conformal
from anomalib_dpclip.post_processing.calibration_statistics import CalibrationStatistics, ImageStatistics
from anomalib_dpclip.post_processing.conformal import NO_GUARANTEE
from anomalib_dpclip.post_processing.scale import MIN_GAP, image_score

logger = logging.getLogger(__name__)

APPROXIMATE = (
    "; the adapters carry no ranges of scores, and in those of these images for the image threshold the bound is approximate"
)
"""Follows a guarantee whose image scores are from `fused_by_others`."""


class Thresholds(NamedTuple):
    """Values that separate normal from anomalous (labels are ``value > threshold``).

    Attributes:
        image: On the image score.
        pixel: On the raw map.
        threshold_basis: What they hold to, in words, from how many images and of what; empty if nobody knows.
        guaranteed_rate: Rate at which a new normal image exceeds the image threshold at most; ``None`` without a guarantee.
    """

    image: float
    pixel: float
    threshold_basis: str = ""
    guaranteed_rate: float | None = None


def best_f1_threshold(scores: Tensor, labels: Tensor) -> float:
    """Threshold of the best F1 score, halfway below the lowest of the scores ``(N,)`` that counts as anomalous.

    Of the labels ``(N,)`` at least one is 1.
    """
    different, normal, anomalous = count_scores(scores, labels)
    lowest = len(different) - 1 - int(f1_curve(normal, anomalous).argmax())
    value = different[lowest].item()
    return (different[lowest - 1].item() + value) / 2 if lowest else value - MIN_GAP


def goes_by_rate(seen: ImageStatistics, false_alarm_rate: float | None) -> bool:
    """Whether thresholds are from normal images alone: a rate was asked for, or there is nothing else to go by."""
    has_normal, has_anomalous = (bool((seen.label == kind).any()) for kind in (0, 1))
    return has_normal and (false_alarm_rate is not None or not has_anomalous)


def fused_by_others(seen: ImageStatistics, detection_weight: float) -> Tensor:
    """Image score of each image in the ranges of the others ``(N,)``, as a new image has its score in the ranges of all.

    A false-alarm rate then holds on average, as with the jackknife, though not for any distribution; in their own ranges,
    where no image is ever extreme, it does not (19 images set 7 % in the place of 5 %).
    """
    map_range, detection_range = (
        torch.stack([_lowest_of_others(lowest), -_lowest_of_others(-highest)])
        for lowest, highest in ((seen.map_min, seen.map_max), (seen.detection, seen.detection))
    )
    return image_score(seen.map_max, seen.detection, map_range, detection_range, detection_weight)


def _lowest_of_others(values: Tensor) -> Tensor:
    """For each of ``(N,)`` the lowest of the others; of less than three, whose others have no range, the lowest of all."""
    (lowest, second), (index, _) = values.topk(2, largest=False) if len(values) > 2 else (values.min().repeat(2), (0, 0))
    others = lowest.repeat(len(values))
    others[index] = second
    return others


def choose_thresholds(
    fused: Tensor, seen: ImageStatistics, statistics: CalibrationStatistics, false_alarm_rate: float | None
) -> Thresholds:
    """Thresholds, from the scores ``(N,)`` of the images that were seen, by the rule that was asked for.

    Or, said in a warning, by the one that the images allow, see `Calibration.set_from`.
    """
    if goes_by_rate(seen, false_alarm_rate):
        if false_alarm_rate is None:
            logger.warning(
                "no anomalous validation image: the thresholds are set so that no normal validation image exceeds them; "
                "choose another rate with the post-processor's false_alarm_rate"
            )
        return thresholds_by_rate(fused, seen, false_alarm_rate or 0.0, statistics.of)
    if not (seen.label == 1).any():
        threshold_basis = f"none of {len(fused)} unlabelled images{statistics.of} exceeds the thresholds; {NO_GUARANTEE}"
        return Thresholds(fused.max().item() + MIN_GAP, seen.map_max.max().item() + MIN_GAP, threshold_basis)
    if false_alarm_rate is not None:
        logger.warning(
            "false_alarm_rate=%s needs normal validation images and there are none: using the F1 score", false_alarm_rate
        )
    return _thresholds_by_f1(fused, seen, statistics)


def thresholds_by_rate(fused: Tensor, seen: ImageStatistics, rate: float, of: str = "") -> Thresholds:
    """Thresholds that a new normal image exceeds at a rate: by its score, and by any pixel of its map.

    They are from the scores ``(N,)`` and peaks of those images that are normal; at a rate of 0 none of these exceeds them.
    """
    normal = seen.label == 0
    count = int(normal.sum())
    if rate and (missing := conformal.too_few(count, Fraction(str(rate)))):
        logger.warning("%s. The strictest threshold that they allow is set", missing)
    # A map's peak decides whether its image shows any anomalous pixel: same rate, same images.
    image, pixel = (conformal.false_alarm_threshold(values[normal], rate) for values in (fused, seen.map_max))
    return Thresholds(image, pixel, conformal.guarantee_of(count, rate, of), float(conformal.guaranteed_rate(count, rate)))


def _thresholds_by_f1(fused: Tensor, seen: ImageStatistics, statistics: CalibrationStatistics) -> Thresholds:
    """Thresholds of the best F1 score of images and of pixels; without masks, of the maps' peaks."""
    known = (seen.label == 0) | (seen.label == 1)
    labels = seen.label[known].long()
    pixel = f1_threshold(statistics.pixels.compute()) if statistics.pixels.update_called else math.nan
    if math.isnan(pixel):
        pixel = best_f1_threshold(seen.map_max[known], labels)
    counted = f"{int((labels == 0).sum())} normal and {int((labels == 1).sum())} anomalous images{statistics.of}"
    threshold_basis = f"the best F1 score of {counted}; {NO_GUARANTEE}"
    return Thresholds(best_f1_threshold(fused[known], labels), pixel, threshold_basis)
