"""The metrics and thresholds of counts, each a function.

Every pixel metric is NaN where it is undefined: without normal pixels, or without anomalous ones.
"""

import logging
import math

import numpy as np
import torch
from scipy.integrate import trapezoid
from torch import Tensor

from anomalib_dpclip.metrics.pixel_histogram import BINS, MOST_REGIONS, REGION_UNIT, PixelCounts

logger = logging.getLogger(__name__)

FPR_LIMIT = 0.3
"""Upper false positive rate of AUPRO (Bergmann et al., MVTec AD, IJCV 2021, section 5.2)."""


def auroc(counts: PixelCounts) -> float:
    """Area under the ROC curve: how often an anomalous pixel outscores a normal one, ties counting half."""
    if not _both_kinds(counts):
        return math.nan
    normal, anomalous = counts.normal.double(), counts.anomalous.double()
    outscored = normal.cumsum(0) - normal / 2
    return float((anomalous * outscored).sum() / (normal.sum() * anomalous.sum()))


def average_precision(counts: PixelCounts) -> float:
    """Average precision: precision at each threshold, weighted by the recall gained there (no interpolation)."""
    if not _both_kinds(counts):
        return math.nan
    hits, alarms = _from_top(counts.anomalous), _from_top(counts.normal)
    gained = counts.anomalous.flip(0).double()
    precision = hits / (hits + alarms).clamp(min=1)  # above the highest score there is nothing to be precise about
    return float((gained * precision).sum() / hits[-1])


def aupro(counts: PixelCounts, fpr_limit: float = FPR_LIMIT) -> float:
    """Area under the curve of per-region overlap against false positive rate, up to a limit in (0, 1] and divided by it.

    Per-region overlap is the recall within each region, averaged over regions. The curve is linear between thresholds, as
    in anomalib's AUPRO. NaN, with a warning, for more than `MOST_REGIONS` regions.

    Raises:
        ValueError: ``fpr_limit`` is out of range.
    """
    if not 0 < fpr_limit <= 1:
        raise ValueError(f"fpr_limit must lie in (0, 1], got {fpr_limit}")
    if not _both_kinds(counts):
        return math.nan
    if counts.regions > MOST_REGIONS:
        logger.warning("AUPRO is undefined for more than %d anomalous regions: are the masks noise?", MOST_REGIONS)
        return math.nan
    alarms = _from_top(counts.normal).numpy()
    overlap = _from_top(counts.region_share).numpy() / (REGION_UNIT * int(counts.regions))
    fpr = np.concatenate(([0.0], alarms / alarms[-1]))
    pro = np.concatenate(([0.0], overlap))
    below = fpr <= fpr_limit
    fpr_kept = np.append(fpr[below], fpr_limit)
    pro_kept = np.append(pro[below], np.interp(fpr_limit, fpr, pro))
    return float(trapezoid(pro_kept, fpr_kept) / fpr_limit)


def f1_curve(normal: Tensor, anomalous: Tensor) -> Tensor:
    """F1 score ``2 TP / (predicted + actual anomalous)`` of calling all from each score upwards anomalous.

    Args:
        normal: How many normal ones have each score, in ascending order of the scores ``(N,)``.
        anomalous: How many anomalous ones have it, at least one of them any ``(N,)``.

    Returns:
        F1 scores in [0, 1], highest score first ``(N,)`` float64.
    """
    hits, alarms = _from_top(anomalous), _from_top(normal)
    return 2 * hits / (hits + alarms + hits[-1])


def count_scores(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count image scores ``(B,)`` by labels 0 and 1 ``(B,)``: equal ones cannot be told apart by any threshold.

    Returns:
        The different scores in ascending order ``(N,)``, and how many normal and anomalous images have each ``(N,)`` int64.
    """
    different, place = scores.unique(return_inverse=True)
    normal, anomalous = (torch.bincount(place[labels == kind], minlength=len(different)) for kind in (0, 1))
    return different, normal, anomalous


def f1_max(counts: PixelCounts) -> float:
    """Highest F1 score that any threshold gives."""
    return float(f1_curve(counts.normal, counts.anomalous).max()) if _both_kinds(counts) else math.nan


def f1_threshold(counts: PixelCounts) -> float:
    """Threshold of the highest F1 score, for labels that are ``score > threshold``; the highest of several equally good ones.

    It lies halfway between the lowest score called anomalous and the next lower one, so that either may shift a little.
    """
    if not _both_kinds(counts):
        return math.nan
    f1 = f1_curve(counts.normal, counts.anomalous)
    lowest = BINS - 1 - int((f1 == f1.max()).nonzero()[0])
    occupied = (counts.normal + counts.anomalous)[:lowest].nonzero()
    gap_start = int(occupied[-1]) + 1 if len(occupied) else 0
    middle = np.float32((gap_start + lowest) / 2 / BINS)
    # The last float32 below the middle of the gap: right even for scores on a bin's edge.
    return float(np.nextafter(middle, np.float32(-1)))


def _both_kinds(counts: PixelCounts) -> bool:
    return bool(counts.normal.any()) and bool(counts.anomalous.any())


def _from_top(histogram: Tensor) -> Tensor:
    """Number at or above each bin, highest bin first, ``(BINS,)`` float64."""
    return histogram.flip(0).double().cumsum(0)  # as integers the sum of several bins may overflow
