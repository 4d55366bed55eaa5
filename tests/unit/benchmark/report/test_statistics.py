"""Statistics against scipy, scikit-learn, sums over pairs, and by hand; and two rows compared by them, in a sentence."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score
from tests.unit.benchmark.results import write_results

from anomalib_dpclip.benchmark.report.command import report
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


LABELS = np.repeat([0, 1], 20)


def row(label, category="weave", noise=1.0, **cells):
    rng = np.random.default_rng(int(100 * noise))
    scores = 1 / (1 + np.exp(-(2 * LABELS - 1 + noise * rng.normal(size=40))))
    return {"label": label, "category": category, "scores": scores, "labels": LABELS, **cells}


def sentence(capsys, *arguments, **options):
    report(*arguments, paired=True, **options)
    return capsys.readouterr().out


def test_two_files_of_one_row_each(tmp_path, capsys):
    good, bad = row("good", noise=0.5), row("bad", noise=4.0)
    files = [write_results(tmp_path / f"{each['label']}.csv", each) for each in (good, bad)]
    said = sentence(capsys, files)
    parts = [auroc_components(each["scores"][LABELS == 0], each["scores"][LABELS == 1]) for each in (good, bad)]
    value, low, high, _ = (100 * each for each in delong([parts[0]], [parts[1]]))
    assert said.startswith(f"Image AUROC of good (good.csv) is {value:+.1f} points against bad (bad.csv) on the same 40 images")
    assert f"(95 % interval {low:+.1f} to {high:+.1f}), more than chance (DeLong, p = " in said
    assert said.endswith("; 1 category is too few for a test over categories.\n")


def test_one_file_of_two_rows_and_the_same_row_twice(tmp_path, capsys):
    file = write_results(tmp_path / "rows.csv", row("A"), row("B", noise=1.01))
    assert "Image AUROC of A (rows.csv) is " in sentence(capsys, [file])
    assert "is +0.0 points" in sentence(capsys, [file], first="A", second="A")


def test_seeds_are_averaged_and_categories_tested(tmp_path, capsys):
    categories = [f"c{number}" for number in range(8)]
    rows = [
        row(label, category, noise=2.0 + seed / 10, seed=seed, pixel_AP=value + number / 100, pixel_AUROC=0.5)
        for label, value in (("A", 0.5), ("B", 0.3))
        for number, category in enumerate(categories)
        for seed in (1, 2)
    ]
    said = sentence(capsys, [write_results(tmp_path / "rows.csv", *rows)])
    assert "Image mean AUROC of 8 categories of A (rows.csv) is +0.0 points" in said
    assert "on the same 320 images" in said
    # Wilcoxon's p of 8 equal signs is 2/256, and of two metrics Holm's doubled.
    assert said.endswith("; over the categories Pixel AP (p = 0.016) differ by more than chance (Wilcoxon, Holm).\n")


def test_rows_of_other_test_images_are_refused_by_name(tmp_path):
    first = write_results(tmp_path / "a.csv", row("A"))
    second = write_results(tmp_path / "b.csv", {**row("B"), "images": [f"test/{n:03}.png" for n in [*range(39), 77]]})
    with pytest.raises(ValueError, match=r"A \(a\.csv\) was tested on test/039\.png of Surfaces/weave, B \(b\.csv\) was not"):
        report([first, second], paired=True)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["a"], {}, r"a\.csv: which row .* Name one with --first: A, B, C"),
        (["a"], {"first": "A", "second": "X"}, r"no row 'X' .* --second: A, B, C"),
        (["a", "a", "a"], {}, "of one file or of two, not of 3"),
        (["one kind"], {"first": "A", "second": "A"}, "no category with normal and anomalous images"),
    ],
)
def test_what_cannot_be_compared(tmp_path, names, options, message):
    write_results(tmp_path / "a.csv", *(row(label) for label in "ABC"))
    write_results(tmp_path / "one kind.csv", {**row("A"), "labels": np.zeros(40)})
    with pytest.raises(ValueError, match=message):
        report([tmp_path / f"{name}.csv" for name in names], paired=True, **options)


def test_scores_that_were_not_kept(tmp_path):
    file = write_results(tmp_path / "a.csv", {"label": "A"}, {"label": "B"})
    with pytest.raises(FileNotFoundError, match=r"a\.images\.csv: scores of images are missing.*--fresh true"):
        report([file], paired=True)
