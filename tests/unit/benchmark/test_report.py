"""The report, worked by hand from a few rows."""

import itertools

import pytest
from PIL import Image

from anomalib_dpclip.benchmark.published import AVERAGES, BY_DATA_SET
from anomalib_dpclip.benchmark.report import AVERAGE, report, summarize
from anomalib_dpclip.benchmark.rows import METRICS, append_row, open_rows, read_rows


def _write(path, *rows):
    open_rows(path, {"command": "dpclip benchmark --config x.yaml", "machine": "a machine"})
    for number, row in enumerate(rows):
        defaults = {"label": "A", "model": "M", "knows": "nothing", "data_set": "Surfaces", "category": "weave", "seed": 1}
        append_row(path, {**defaults, "accelerator": "cpu", "status": "ok", "key": f"{path.stem}{number}", **row})
    return path


def _cells(markdown, label, section=None):
    """Cells of the first row of a label, after a section's heading."""
    text = markdown.split(f"## {section}\n")[1] if section else markdown
    line = next(line for line in text.splitlines() if line.startswith(f"| {label} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_mean_over_categories_then_spread_over_seeds(tmp_path, capsys):
    scores = {(1, "weave"): 0.5, (1, "wood"): 0.7, (2, "weave"): 0.7, (2, "wood"): 0.9}
    rows = [{"seed": seed, "category": c, "image_AUROC": score} for (seed, c), score in scores.items()]
    report([_write(tmp_path / "rows.csv", *rows)])
    # Seeds average 60 and 80: mean 70, standard deviation (of a sample) 14.1. The only model is the best one.
    cells = _cells(capsys.readouterr().out, "A", "Surfaces")
    assert cells == ["nothing", "**70.0** ± 14.1", *["n/a"] * 6]


def test_the_best_as_printed_is_bold_and_ties_are_both(tmp_path, capsys):
    scores = {"A": 0.80001, "B": 0.80004, "C": 0.7}
    report([_write(tmp_path / "rows.csv", *({"label": k, "image_AP": v} for k, v in scores.items()))])
    out = capsys.readouterr().out
    assert [_cells(out, label)[2] for label in scores] == ["**80.0**", "**80.0**", "70.0"]


def test_a_mean_over_fewer_categories_is_marked(tmp_path, capsys):
    rows = [{"label": label, "category": c, "pixel_AP": 0.5} for label in "AB" for c in ("weave", "wood")]
    rows[3] |= {"status": "failed", "reason": "out of memory", "pixel_AP": None}
    report([_write(tmp_path / "rows.csv", *rows)])
    out = capsys.readouterr().out
    assert _cells(out, "A")[5] == "**50.0**"
    assert _cells(out, "B")[5] == "**50.0**†"
    assert "- B / Surfaces / wood / seed 1: out of memory" in out


def test_a_figure_that_no_model_has_in_a_category_marks_nobody(tmp_path, capsys):
    rows = [{"label": label, "category": c, "image_AUROC": 0.5} for label in "AB" for c in ("weave", "wood")]
    rows[0]["pixel_AUROC"] = rows[2]["pixel_AUROC"] = 0.6
    report([_write(tmp_path / "rows.csv", *rows)])
    assert "†" not in capsys.readouterr().out.split("## Surfaces")[1]


def test_published_figures_stand_beside_measured_ones(tmp_path, capsys):
    rows = [{"data_set": name, "pixel_AUROC": 0.9} for name in ("Visa", "BTech", "mine")]
    report([_write(tmp_path / "rows.csv", *rows)])
    out = capsys.readouterr().out
    assert _cells(out, "DP-CLIP (published)", "Pixel AUROC") == ["nothing", "**94.9**", "**96.7**", "n/a", "n/a"]
    assert _cells(out, "A", "Pixel AUROC") == ["nothing", "90.0", "90.0", "**90.0**", "**90.0**"]
    assert "AA-CLIP" not in out  # its metrics are averages over data sets that are not all here


def test_published_averages_need_all_data_sets(tmp_path):
    rows = [{"data_set": name, "pixel_AUROC": 0.9} for name in BY_DATA_SET]
    summary = summarize(read_rows(_write(tmp_path / "rows.csv", *rows)))
    metrics = summary.set_index(["label", "data_set", "metric"])
    for method, published in AVERAGES.items():
        assert metrics.loc[(f"{method} (published)", AVERAGE, "image_AP"), "mean"] == published.image_AP
    assert metrics.loc[("A", AVERAGE, "pixel_AUROC"), "mean"] == pytest.approx(90)


def test_published_averages_agree_with_the_published_figures():
    # The paper rounds; its averages can be off by the rounding of each metric and of the average itself.
    for position, average in enumerate(AVERAGES["DP-CLIP"]):
        metrics = [row[position] for row in BY_DATA_SET.values() if row[position] == row[position]]
        assert sum(metrics) / len(metrics) == pytest.approx(average, abs=0.1)


def test_the_best_is_told_among_those_that_know_as_much_and_these_stand_together(tmp_path, capsys):
    known = {
        "A": "all normal photos",
        "B": "16 normal photos",
        "C": "nothing",
        "D": "the unlabelled lot",
        "E": "4 normal photos",
    }
    rows = [{"label": label, "knows": knows, "image_AP": 0.9} for label, knows in known.items()]
    rows.append({"label": "F", "image_AP": 0.95})
    report([_write(tmp_path / "rows.csv", *rows)])
    out = capsys.readouterr().out
    shown = [line.split("|")[1:3] for line in out.partition("## Cost")[0].splitlines() if line.startswith("| ")][2:]
    assert [[cell.strip() for cell in cells] for cells in shown] == [
        [each, {**known, "F": "nothing"}[each]] for each in "CFEBDA"
    ]
    assert {label: _cells(out, label)[2] for label in "ABCDEF"} == {
        **dict.fromkeys("ABDE", "**90.0**"),
        "C": "90.0",
        "F": "**95.0**",
    }
    costs = [line.split("|")[1].strip() for line in out.partition("## Cost")[2].splitlines() if line.startswith("| ")]
    assert costs[2:] == list("CFEBDA")


def test_figures_of_a_line_stand_beside_auroc_and_the_lowest_is_bold(tmp_path, capsys):
    figures = {"A": (0.9, 0.3, 0.05), "B": (0.8, 0.1, 0.2)}
    rows = [
        {"label": label, "image_AUROC": auroc, "overkill_at_5": overkill, "escape_at_10": escape}
        for label, (auroc, overkill, escape) in figures.items()
    ]
    path = _write(tmp_path / "rows.csv", *rows)
    report([path])
    tables = capsys.readouterr().out.split("\n\n")
    (table,) = [each for each in tables if each.startswith("| Model") and "Overkill" in each]
    columns = [
        *("Model", "Knows of the target", "Image AUROC"),
        *(f"Overkill at {share} % escape" for share in (2, 5, 10)),
        *(f"Escape at {share} % overkill" for share in (2, 5, 10)),
    ]
    assert table.splitlines()[0] == f"| {' | '.join(columns)} |"
    assert _cells(table, "A") == ["nothing", "**90.0**", "n/a", "30.0", "n/a", "n/a", "n/a", "**5.0**"]
    assert _cells(table, "B") == ["nothing", "80.0", "n/a", "**10.0**", "n/a", "n/a", "n/a", "20.0"]

    report([path, _write(tmp_path / "other.csv", {"data_set": "MPDD", "overkill_at_5": 0.2})])
    assert _cells(capsys.readouterr().out, "A", "Overkill at 5 % escape") == ["nothing", "30.0", "**20.0**", "25.0"]


def test_files_are_written_whole_with_readable_charts(tmp_path):
    labels, categories = ("A", "B | C"), ("weave", "wood")
    rows = [
        {"label": label, "category": c, "seed": seed, **dict.fromkeys(METRICS, 0.5 + 0.1 * seed)}
        for label, c, seed in itertools.product(labels, categories, (1, 2))
    ]
    out = tmp_path / "report"
    report([_write(tmp_path / "one.csv", *rows), _write(tmp_path / "two.csv", {"data_set": "MPDD", "image_AP": 0.5})], out)
    assert sorted(path.name for path in out.iterdir()) == ["categories.png", "overview.png", "report.md"]
    for name in ("overview.png", "categories.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) > 300
            assert len(picture.convert("RGB").getcolors(2**24)) > 10  # something is drawn
    markdown = (out / "report.md").read_text(encoding="utf-8")
    assert "B \\| C" in markdown
    assert "- command: dpclip benchmark --config x.yaml" in markdown
    assert "on a CPU that of the whole process" in markdown
    assert "](overview.png)" in markdown


def test_nothing_to_report_is_said(tmp_path):
    path = _write(tmp_path / "rows.csv", {"status": "failed", "reason": "why"})
    with pytest.raises(ValueError, match="no job of these results succeeded"):
        report([path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


OLD = """# command: dpclip benchmark
label,model,data_set,category,seed,accelerator,image_AUROC,image_AP,image_F1Max,pixel_AUROC,pixel_AP,pixel_AUPRO,pixel_F1Max,\
images_per_second,training_minutes,peak_memory_mb,status,reason,key
A,DPCLIP,Surfaces,weave,1,cpu,0.9,,,,,,,10,1,100,ok,,one
B,Patchcore,Surfaces,weave,1,cpu,0.8,,,,,,,10,1,100,ok,,two
"""


def test_files_from_before_figures_of_a_line_are_read(tmp_path, capsys):
    (tmp_path / "old.csv").write_text(OLD)
    report([tmp_path / "old.csv"])
    out = capsys.readouterr().out
    assert "Overkill and escape: n/a, these rows are from before they were measured." in out
    assert _cells(out, "A") == ["nothing", "**90.0**", *["n/a"] * 6]
    assert _cells(out, "B") == ["all normal photos", "**80.0**", *["n/a"] * 6]

    # Beside newer ones each lacks what it lacks.
    report([tmp_path / "old.csv", _write(tmp_path / "new.csv", {"label": "C", "image_AUROC": 0.7, "escape_at_2": 0.1})])
    table = capsys.readouterr().out.split("Lower is better.")[1]
    assert _cells(table, "A") == ["nothing", "**90.0**", *["n/a"] * 6]
    assert _cells(table, "C") == ["nothing", "70.0", *["n/a"] * 3, "**10.0**", *["n/a"] * 2]
