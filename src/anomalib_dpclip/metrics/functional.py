"""The pixel metrics and thresholds, each a function of the same counts.

Every metric is NaN where it is undefined: without normal pixels, or without anomalous ones.
"""

import logging
import math

import numpy as np
import torch
from scipy.integrate import trapezoid

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
    """Area under the curve of per-region overlap against false positive rate, up to a limit and divided by it.

    Per-region overlap is the recall within each region, averaged over regions, so that small ones count as much as
    large ones. The curve is linear between thresholds, as in anomalib's AUPRO. NaN, with a warning, for more than
    `MOST_REGIONS` regions.

    Args:
        counts: Pixel counts.
        fpr_limit: Where the area ends, in (0, 1].

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


def f1_curve(normal: torch.Tensor, anomalous: torch.Tensor) -> torch.Tensor:
    """F1 score ``2 TP / (predicted + actual anomalous)`` of calling all from each score upwards anomalous.

    Args:
        normal: How many normal ones have each score, in ascending order of the scores ``(N,)``.
        anomalous: How many anomalous ones have it, at least one of them any ``(N,)``.

    Returns:
        F1 scores in [0, 1], highest score first ``(N,)`` float64.
    """
    hits, alarms = _from_top(anomalous), _from_top(normal)
    return 2 * hits / (hits + alarms + hits[-1])


def f1_max(counts: PixelCounts) -> float:
    """Highest F1 score that any threshold gives."""
    return float(f1_curve(counts.normal, counts.anomalous).max()) if _both_kinds(counts) else math.nan


def f1_threshold(counts: PixelCounts) -> float:
    """Threshold of the highest F1 score, for labels that are ``score > threshold``.

    It lies halfway between the lowest score called anomalous and the next lower one, so that either may shift a little.
    Of several equally good ones the highest is taken. NaN where F1 is undefined.
    """
    if not _both_kinds(counts):
        return math.nan
    f1 = f1_curve(counts.normal, counts.anomalous)
    best_from_top = int((f1 == f1.max()).nonzero()[0])
    return _threshold_below(counts.normal + counts.anomalous, BINS - 1 - best_from_top)


def _both_kinds(counts: PixelCounts) -> bool:
    return bool(counts.normal.any()) and bool(counts.anomalous.any())


def _from_top(histogram: torch.Tensor) -> torch.Tensor:
    """Number at or above each bin, highest bin first, ``(BINS,)`` float64."""
    return histogram.flip(0).double().cumsum(0)  # as integers the sum of several bins may overflow


def _threshold_below(histogram: torch.Tensor, lowest: int) -> float:
    """A threshold that ``lowest`` and all higher bins exceed and all lower bins with a score do not.

    The last float32 below the middle of the gap: ``score > threshold`` is then right even for scores on a bin's edge.
    """
    if lowest == BINS:
        return 1.0
    occupied = histogram[:lowest].nonzero()
    gap_start = int(occupied[-1]) + 1 if len(occupied) else 0
    middle = np.float32((gap_start + lowest) / 2 / BINS)
    return float(np.nextafter(middle, np.float32(-1)))
