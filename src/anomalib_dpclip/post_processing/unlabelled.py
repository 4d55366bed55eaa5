"""Thresholds of an unlabelled batch: nobody knows which of its images are anomalous, but the quietest ones are not."""

import torch
from torch import Tensor

from anomalib_dpclip.post_processing.conformal import NO_GUARANTEE
from anomalib_dpclip.post_processing.scale import MIN_GAP
from anomalib_dpclip.post_processing.thresholds import Thresholds

QUIET = (0.05, 0.3)
"""Quantiles of the scores between which a large batch's images are good, even if half of them are damaged."""

QUIET_SPANS = 3.0
"""Spans of these quantiles above the upper one where the threshold lies: of normally distributed scores 2.8 deviations."""

MIN_QUIET = 40
"""Images from which these quantiles are steady."""

MAX_DEVIATIONS = 3.0
"""Deviations above the median, robustly measured, from which an image of a smaller batch is called anomalous."""

GAUSSIAN_MAD = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""

SEPARABLE = 0.75
"""Share of the scores' variance that lies between two kinds, from which there plainly are two kinds (Otsu's criterion)."""


def unlabelled_thresholds(image: Tensor, pixel: Tensor) -> Thresholds:
    """Thresholds of a batch by the scores of its images, and by the highest values of their maps, both ``(N,)``."""
    count = len(image)
    if count < MIN_QUIET:
        basis = f"{MAX_DEVIATIONS:g} deviations above the median of {count} images of an unlabelled lot"
    else:
        basis = f"{QUIET_SPANS:g} times the spread of the quietest third above it, of {count} images of an unlabelled lot"
    return Thresholds(unlabelled_threshold(image), unlabelled_threshold(pixel), f"{basis}; {NO_GUARANTEE}")


def unlabelled_threshold(scores: Tensor) -> float:
    """The score from which one of ``(N,)``, an unknown part of them anomalous, is no longer like the good ones.

    A deviation from the median grows with the damaged images: where two in five were damaged, it missed most of them.
    """
    if len(scores) < MIN_QUIET:
        median = scores.median()
        return (median + MAX_DEVIATIONS * GAUSSIAN_MAD * (scores - median).abs().median()).item() + MIN_GAP
    low, high = scores.double().quantile(torch.tensor(QUIET, dtype=torch.double, device=scores.device))
    return (high + QUIET_SPANS * (high - low)).item() + MIN_GAP


def mostly_anomalous(scores: Tensor) -> bool:
    """Whether scores ``(N,)`` plainly are of two kinds and the higher one is the larger (Otsu's split)."""
    ranked = scores.double().sort().values
    count = len(ranked)
    total = ranked.var(unbiased=False)
    if count < 4 or total == 0:
        return False
    below = torch.arange(1, count, dtype=torch.double)
    means_below = ranked.cumsum(0)[:-1] / below
    means_above = (ranked.sum() - ranked.cumsum(0)[:-1]) / (count - below)
    between = below * (count - below) / count**2 * (means_above - means_below).square()
    split = int(between.argmax())
    return bool(between[split] / total > SEPARABLE and count - split - 1 > count / 2)
