"""Whether a difference is more than chance: intervals by bootstrap, DeLong's test, Wilcoxon's test, Holm's correction."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

RESAMPLES = 1000


class Components(NamedTuple):
    """What each image contributes to an AUROC (DeLong et al., Biometrics 1988).

    Attributes:
        anomalous: Share of the normal images that each anomalous one outscores, ties counting half ``(M,)``.
        normal: Share of the anomalous images that outscore each normal one ``(N,)``.
    """

    anomalous: Floats
    normal: Floats

    @property
    def auroc(self) -> float:
        """The AUROC, the mean of either."""
        return float(self.anomalous.mean())


def auroc_components(normal: Floats, anomalous: Floats) -> Components:
    """Components of an AUROC, by midranks (Sun and Xu, IEEE Signal Processing Letters 2014).

    Args:
        normal: Scores ``(N,)``.
        anomalous: Scores ``(M,)``.
    """
    ranks = stats.rankdata(np.concatenate([anomalous, normal]))
    count, others = len(anomalous), len(normal)
    return Components(
        (ranks[:count] - stats.rankdata(anomalous)) / others,
        1 - (ranks[count:] - stats.rankdata(normal)) / count,
    )


class Difference(NamedTuple):
    """A difference of two means of AUROCs.

    Attributes:
        value: First less second, in [-1, 1].
        low: Lower end of its 95 % interval.
        high: Upper end.
        p: Two-sided p value; 1 where the two do not differ in any image.
    """

    value: float
    low: float
    high: float
    p: float


def delong(first: Sequence[Components], second: Sequence[Components]) -> Difference:
    """DeLong's test for the mean AUROC of two models over the same categories, whose images are independent.

    Args:
        first: One model's components, of each category.
        second: The other's, of the same images in the same order.

    Returns:
        The difference. Over one category this is DeLong's test itself.
    """
    pairs = list(zip(first, second, strict=True))
    value = float(np.mean([a.auroc - b.auroc for a, b in pairs]))
    variance = sum(_variance(a.anomalous - b.anomalous) + _variance(a.normal - b.normal) for a, b in pairs) / len(pairs) ** 2
    error = math.sqrt(variance)
    if error == 0:
        return Difference(value, value, value, 1.0 if value == 0 else 0.0)
    reach = stats.norm.ppf(0.975) * error
    return Difference(value, value - reach, value + reach, float(2 * stats.norm.sf(abs(value) / error)))


def _variance(values: Floats) -> float:
    """Variance of a mean; 0 for one value, of whose spread nothing is known."""
    return float(values.var(ddof=1) / len(values)) if len(values) > 1 else 0.0


def auroc_interval(groups: Sequence[tuple[Floats, Floats]], seed: int = 0) -> tuple[float, float]:
    """95 % interval of a mean AUROC over images, by bootstrap (percentiles).

    Args:
        groups: Normal and anomalous scores of each category; each is resampled by itself.
        seed: Of the resampling.
    """
    samples = [scores for group in groups for scores in group]

    def mean_auroc(*resampled: Floats, axis: int) -> Floats:
        del axis  # the last one
        return np.mean([_auroc(*pair) for pair in zip(resampled[::2], resampled[1::2], strict=True)], axis=0)

    if all(normal.max() < anomalous.min() for normal, anomalous in groups):
        return 1.0, 1.0  # of any resampling, for which scipy would warn
    interval = stats.bootstrap(
        samples, mean_auroc, n_resamples=RESAMPLES, vectorized=True, method="percentile", rng=np.random.default_rng(seed)
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _auroc(normal: Floats, anomalous: Floats) -> Floats:
    """AUROC of scores ``(..., N)`` and ``(..., M)``, by the rank sum of the anomalous ones, ``(...)``."""
    ranks, count = stats.rankdata(np.concatenate([anomalous, normal], axis=-1), axis=-1), anomalous.shape[-1]
    return (ranks[..., :count].sum(-1) - count * (count + 1) / 2) / (count * normal.shape[-1])


def wilcoxon(first: Floats, second: Floats) -> float:
    """Two-sided p value of Wilcoxon's signed-rank test; 1 where no pair differs.

    Args:
        first: A metric of each category ``(N,)``.
        second: Another model's of the same categories ``(N,)``.
    """
    differences = first - second
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for their number (Holm, Scandinavian Journal of Statistics 1979), in the order that they came.

    Example:
        >>> holm([0.04, 0.01, 0.03])
        [0.06, 0.03, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1)
    return [float(value) for value in corrected]
