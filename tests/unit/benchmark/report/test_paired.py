import numpy as np
import pytest
from tests.unit.benchmark.results import write_results

from anomalib_dpclip.benchmark.report.command import report
from anomalib_dpclip.benchmark.report.statistics import auroc_components, delong

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
