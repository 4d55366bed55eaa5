"""Thresholds on image scores and raw maps: of the best F1 score, or of a false-alarm rate."""

import logging
import math
from fractions import Fraction
from typing import NamedTuple

from torch import Tensor

from anomalib_dpclip.metrics.functional import f1_curve, f1_threshold
from anomalib_dpclip.metrics.image_metrics import count_scores
from anomalib_dpclip.model.calibration_statistics import CalibrationStatistics, SeenImages
from anomalib_dpclip.model.normalisation import MIN_GAP

logger = logging.getLogger(__name__)


class Thresholds(NamedTuple):
    """Values that separate normal from anomalous (labels are ``value > threshold``).

    Attributes:
        image: On the image score.
        pixel: On the raw map.
        promise: What they hold to, in words, and on what; empty if nobody knows.
    """

    image: float
    pixel: float
    promise: str = ""


def best_f1_threshold(scores: Tensor, labels: Tensor) -> float:
    """Threshold of the best F1 score, halfway below the lowest score that counts as anomalous.

    Args:
        scores: Image scores ``(N,)``.
        labels: 0 or 1 ``(N,)``, with at least one 1.
    """
    counts = count_scores(scores, labels)
    lowest = len(counts.scores) - 1 - int(f1_curve(counts.normal, counts.anomalous).argmax())
    value = counts.scores[lowest].item()
    return (counts.scores[lowest - 1].item() + value) / 2 if lowest else value - MIN_GAP


def false_alarm_threshold(normal_scores: Tensor, rate: float) -> float:
    """Threshold that at most a share ``rate`` of the normal scores ``(N,)`` exceeds; from normal images alone."""
    ranked = normal_scores.sort(descending=True).values
    # As many scores may lie above the threshold: it lies halfway to the next higher one, however many are equal.
    value = ranked[_allowed(rate, len(ranked))].item()
    higher = ranked[ranked > value]
    return (value + higher[-1].item()) / 2 if len(higher) else value + MIN_GAP


def _allowed(rate: float, images: int) -> int:
    """How many of so many images a rate allows: 0.29 of 100 are 29, whatever binary fractions make of 0.29."""
    return int(Fraction(str(rate)) * images)


def choose_thresholds(
    fused: Tensor,
    seen: SeenImages,
    statistics: CalibrationStatistics,
    false_alarm_rate: float | None,
) -> Thresholds:
    """Thresholds by the rule that was asked for, or, said in a warning, by the one that the images allow.

    Args:
        fused: Image score of each image ``(N,)``.
        seen: The images.
        statistics: What else was seen of them.
        false_alarm_rate: Share of normal images that may be called anomalous; ``None`` for the best F1 score.
    """
    has_normal, has_anomalous = bool((seen.label == 0).any()), bool((seen.label == 1).any())
    if not has_normal and not has_anomalous:
        promise = f"none of {len(fused)} unlabelled images exceeds the thresholds"
        return Thresholds(fused.max().item() + MIN_GAP, seen.peak.max().item() + MIN_GAP, promise)
    if false_alarm_rate is not None and has_normal:
        return thresholds_by_rate(fused, seen, false_alarm_rate)
    if not has_anomalous:
        logger.warning(
            "no anomalous validation image: the thresholds are set so that no normal validation image exceeds them; "
            "choose another rate with the post-processor's false_alarm_rate"
        )
        return thresholds_by_rate(fused, seen, 0.0)
    if false_alarm_rate is not None:
        logger.warning(
            "false_alarm_rate=%s needs normal validation images and there are none: using the F1 score", false_alarm_rate
        )
    return thresholds_by_f1(fused, seen, statistics)


def thresholds_by_rate(fused: Tensor, seen: SeenImages, rate: float) -> Thresholds:
    """Thresholds that a share of the normal images exceeds: by their score, and by any pixel of their map."""
    normal = seen.label == 0
    # A map's peak decides whether its image shows any anomalous pixel: same rate, same images.
    image, pixel = (false_alarm_threshold(values[normal], rate) for values in (fused, seen.peak))
    return Thresholds(image, pixel, f"at most {rate:.1%} of {int(normal.sum())} normal images exceed the thresholds")


def thresholds_by_f1(fused: Tensor, seen: SeenImages, statistics: CalibrationStatistics) -> Thresholds:
    """Thresholds of the best F1 score of images and of pixels; without masks, of the maps' peaks."""
    known = (seen.label == 0) | (seen.label == 1)
    labels = seen.label[known].long()
    pixel = f1_threshold(statistics.pixels.compute()) if statistics.pixels.update_called else math.nan
    if math.isnan(pixel):  # the map's peak is an image score too
        pixel = best_f1_threshold(seen.peak[known], labels)
    counted = f"{int((labels == 0).sum())} normal and {int((labels == 1).sum())} anomalous images"
    return Thresholds(best_f1_threshold(fused[known], labels), pixel, f"the best F1 score of {counted}")
