"""Whether a difference is more than chance: intervals by bootstrap, DeLong's test, Wilcoxon's test, Holm's correction."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

RESAMPLES = 1000


Components = tuple[Floats, Floats]
"""What each normal and each anomalous image contributes to an AUROC, which is the mean of either."""


def auroc_components(normal: Floats, anomalous: Floats) -> Components:
    """Components of an AUROC (DeLong et al., Biometrics 1988), by midranks (Sun and Xu, IEEE Signal Processing Letters 2014).

    Args:
        normal: Scores ``(N,)``.
        anomalous: Scores ``(M,)``.

    Returns:
        Share of the anomalous images that outscore each normal one ``(N,)``, and of the normal ones that each anomalous one
        outscores ``(M,)``, ties counting half.
    """
    ranks = stats.rankdata(np.concatenate([normal, anomalous]))
    count, others = len(normal), len(anomalous)
    return 1 - (ranks[:count] - stats.rankdata(normal)) / others, (ranks[count:] - stats.rankdata(anomalous)) / count


def delong(first: Sequence[Components], second: Sequence[Components]) -> tuple[float, float, float, float]:
    """DeLong's test for the mean AUROC of two models over the same categories, whose images are independent.

    Returns:
        First less second in [-1, 1], both ends of its 95 % interval, and the two-sided p value.
    """
    differences = [[a - b for a, b in zip(*pair, strict=True)] for pair in zip(first, second, strict=True)]
    value = float(np.mean([anomalous.mean() for _, anomalous in differences]))
    error = math.sqrt(sum(_variance(each) for pair in differences for each in pair)) / len(differences)
    if error == 0:
        return value, value, value, 1.0 if value == 0 else 0.0
    reach = stats.norm.ppf(0.975) * error
    return value, value - reach, value + reach, float(2 * stats.norm.sf(abs(value) / error))


def _variance(values: Floats) -> float:
    """Variance of a mean; 0 for one value, of whose spread nothing is known."""
    return float(values.var(ddof=1) / len(values)) if len(values) > 1 else 0.0


def auroc_interval(groups: Sequence[tuple[Floats, Floats]]) -> tuple[float, float]:
    """95 % interval of a mean AUROC over images, by bootstrap (percentiles) of each category's normal and anomalous scores."""
    if all(normal.max() < anomalous.min() for normal, anomalous in groups):
        return 1.0, 1.0  # of any resampling, for which scipy would warn

    def mean_auroc(*resampled: Floats, axis: int) -> Floats:
        del axis  # the last one
        return np.mean([_auroc(*pair) for pair in zip(resampled[::2], resampled[1::2], strict=True)], axis=0)

    samples, rng = [scores for group in groups for scores in group], np.random.default_rng(0)
    found = stats.bootstrap(samples, mean_auroc, n_resamples=RESAMPLES, vectorized=True, method="percentile", rng=rng)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def _auroc(normal: Floats, anomalous: Floats) -> Floats:
    """AUROC of scores ``(..., N)`` and ``(..., M)``, by the rank sum of the anomalous ones, ``(...)``."""
    ranks, count = stats.rankdata(np.concatenate([anomalous, normal], axis=-1), axis=-1), anomalous.shape[-1]
    return (ranks[..., :count].sum(-1) - count * (count + 1) / 2) / (count * normal.shape[-1])


def wilcoxon(first: Floats, second: Floats) -> float:
    """Two-sided p value of Wilcoxon's signed-rank test over categories ``(N,)``; 1 where no pair differs."""
    differences = first - second
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for their number (Holm, Scandinavian Journal of Statistics 1979), in the order that they came.

    Example:
        >>> holm([0.04, 0.01, 0.03])
        [0.06, 0.03, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(p_values))
    corrected[order] = np.maximum.accumulate(np.asarray(p_values)[order] * np.arange(len(p_values), 0, -1)).clip(max=1)
    return corrected.tolist()
