"""Statistics against scipy, scikit-learn, sums over pairs, and by hand."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from anomalib_dpclip.benchmark.report.statistics import auroc_components, auroc_interval, delong, holm, wilcoxon

RNG = np.random.default_rng(0)


def scores(normal=30, anomalous=20, shift=1.0):
    return np.round(RNG.normal(0, 1, normal), 1), np.round(RNG.normal(shift, 1, anomalous), 1)  # rounded: some are equal


def pairs(normal, anomalous):
    """Of each pair whether the anomalous one outscores, ties half: the definition."""
    return (anomalous[:, None] > normal) + 0.5 * (anomalous[:, None] == normal)


def test_components_are_means_of_pairs_and_their_mean_is_the_auroc():
    normal, anomalous = scores()
    of_normal, of_anomalous = auroc_components(normal, anomalous)
    assert of_anomalous == pytest.approx(pairs(normal, anomalous).mean(1))
    assert of_normal == pytest.approx(pairs(normal, anomalous).mean(0))
    labels = np.repeat([0, 1], [30, 20])
    assert of_normal.mean() == pytest.approx(roc_auc_score(labels, np.concatenate([normal, anomalous])))


def test_delong_by_hand():
    # First: all pairs but (anomalous 2, normal 3) in order, 3 of 4; second: all in order.
    first = auroc_components(np.array([1.0, 3.0]), np.array([2.0, 4.0]))
    second = auroc_components(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    # Components 0.5, 1 and 1, 0.5 against ones: differences -0.5, 0 twice, each of variance 0.125, of a mean 0.0625.
    error = np.sqrt(0.0625 + 0.0625)
    expected = (-0.25, *stats.norm.interval(0.95, -0.25, error), 2 * stats.norm.sf(0.25 / error))
    assert delong([first], [second]) == pytest.approx(expected)


def test_the_same_scores_differ_by_nothing_and_opposite_ones_by_certainty():
    good, bad = auroc_components(np.zeros(3), np.ones(3)), auroc_components(np.ones(3), np.zeros(3))
    assert delong([good], [good]) == (0.0, 0.0, 0.0, 1.0)
    assert delong([good], [bad]) == (1.0, 1.0, 1.0, 0.0)
    # Of several categories it is a mean with a smaller error.
    first, second = auroc_components(*scores()), auroc_components(*scores())
    one, four = delong([first], [second]), delong([first] * 4, [second] * 4)
    assert four[0] == pytest.approx(one[0])
    assert four[2] - four[0] == pytest.approx((one[2] - one[0]) / 2)


def test_interval_of_one_category_is_scipy_s_and_of_perfect_scores_a_point():
    normal, anomalous = scores()

    def auroc(normal, anomalous):
        return float(pairs(normal, anomalous).mean())

    expected = stats.bootstrap(
        (normal, anomalous), auroc, n_resamples=1000, vectorized=False, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert auroc_interval([(normal, anomalous)]) == pytest.approx(tuple(expected))
    low, high = auroc_interval([(normal, anomalous)] * 4)
    assert expected.low < low < high < expected.high
    assert auroc_interval([(np.zeros(4), np.ones(4))]) == (1.0, 1.0)


def test_wilcoxon_and_holm_by_hand():
    # All of six differences positive: 2 of 64 signs are as extreme.
    assert wilcoxon(np.arange(1, 7.0), np.zeros(6)) == pytest.approx(2 / 64)
    assert wilcoxon(np.ones(6), np.ones(6)) == 1.0
    # Sorted 0.01, 0.02, 0.03, 0.6: times 4, 3, 2, 1; none below the one before it, none above 1.
    assert holm([0.6, 0.01, 0.03, 0.02]) == pytest.approx([0.6, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
