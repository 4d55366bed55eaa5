import itertools
import json
import re
from base64 import b64decode
from io import BytesIO

import pytest
from PIL import Image
from tests.unit.benchmark.results import write_results

from anomalib_dpclip.benchmark.report.command import report
from anomalib_dpclip.benchmark.report.published import AVERAGES, BY_DATA_SET
from anomalib_dpclip.benchmark.rows import METRICS


@pytest.fixture
def reported(tmp_path, capsys):
    def of(*rows):
        report([write_results(tmp_path / "rows.csv", *rows)])
        return capsys.readouterr().out

    return of


def _cells(markdown, label, section=None):
    """Cells of the first row of a label, after a section's heading."""
    text = markdown.split(f"## {section}\n")[1] if section else markdown
    line = next(line for line in text.splitlines() if line.startswith(f"| {label} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_mean_over_categories_then_spread_over_seeds(reported):
    scores = {(1, "weave"): 0.5, (1, "wood"): 0.7, (2, "weave"): 0.7, (2, "wood"): 0.9}
    rows = [{"seed": seed, "category": c, "image_AUROC": score} for (seed, c), score in scores.items()]
    # Seeds average 60 and 80: mean 70, standard deviation (of a sample) 14.1. The only model is the best one.
    cells = _cells(reported(*rows), "A", "Surfaces")
    assert cells == ["nothing", "**70.0** ± 14.1"]


def test_a_mean_over_fewer_categories_is_marked(reported):
    rows = [{"label": label, "category": c, "pixel_AP": 0.5} for label in "AB" for c in ("weave", "wood")]
    rows[3] |= {"status": "failed", "reason": "out of memory", "pixel_AP": None}
    out = reported(*rows)
    assert _cells(out, "A")[1] == "**50.0**"
    assert _cells(out, "B")[1] == "**50.0**†"
    assert "- B / Surfaces / wood / seed 1: failed: out of memory" in out


def test_published_figures_stand_beside_measured_ones(tmp_path, capsys, reported):
    rows = [{"data_set": name, "pixel_AUROC": 0.9} for name in ("Visa", "BTech", "mine")]
    out = reported(*rows)
    assert _cells(out, "DP-CLIP (published)", "Pixel AUROC") == ["nothing", "**94.9**", "**96.7**", "n/a", "n/a"]
    assert _cells(out, "A", "Pixel AUROC") == ["nothing", "90.0", "90.0", "**90.0**", "**90.0**"]
    assert "AA-CLIP" not in out  # its metrics are averages over data sets that are not all here
    report([write_results(tmp_path / "all.csv", *({"data_set": name, "pixel_AUROC": 0.9} for name in BY_DATA_SET))])
    assert _cells(capsys.readouterr().out, "AA-CLIP (published)", "Image AP")[-1] == f"{AVERAGES['AA-CLIP'].image_AP}"


def test_published_averages_agree_with_the_published_figures():
    # The paper rounds; its averages can be off by the rounding of each metric and of the average itself.
    for position, average in enumerate(AVERAGES["DP-CLIP"]):
        metrics = [row[position] for row in BY_DATA_SET.values() if row[position] == row[position]]
        assert sum(metrics) / len(metrics) == pytest.approx(average, abs=0.1)


def test_the_best_is_told_among_those_that_know_as_much_and_these_stand_together(reported):
    photos = ("all normal photos", "16 normal photos", "nothing", "the unlabelled lot", "4 normal photos")
    known = dict(zip("ABCDE", photos, strict=True))
    rows = [{"label": label, "knows": knows, "image_AP": 0.90001} for label, knows in known.items()]
    rows += [{"label": "F", "image_AP": 0.95}, {"label": "G", "image_AP": 0.95004}]  # equal as printed
    out = reported(*rows)
    shown = [line.split("|")[1:3] for line in out.partition("## Cost")[0].splitlines() if line.startswith("| ")][2:]
    assert ["".join(cells).split("  ") for cells in shown] == [[f" {e}", f"{known.get(e, 'nothing')} "] for e in "CFGEBDA"]
    assert [_cells(out, label)[1] for label in "ABDECFG"] == [*["**90.0**"] * 4, "90.0", *["**95.0**"] * 2]


def test_figures_of_a_line_stand_beside_auroc_and_the_lowest_is_bold(tmp_path, capsys):
    figures = {"A": (0.9, 0.3, 0.05), "B": (0.8, 0.1, 0.2)}
    rows = [
        {"label": label, "image_AUROC": auroc, "fpr_at_fnr_5": overkill, "fnr_at_fpr_10": escape}
        for label, (auroc, overkill, escape) in figures.items()
    ]
    path = write_results(tmp_path / "rows.csv", *rows)
    report([path])
    tables = capsys.readouterr().out.split("\n\n")
    (table,) = [each for each in tables if each.startswith("| Model") and "Overkill" in each]
    columns = ["Model", "Knows of the target", "Image AUROC", "Overkill at 5 % escape", "Escape at 10 % overkill"]
    assert table.splitlines()[0] == f"| {' | '.join(columns)} |"
    assert _cells(table, "A") == ["nothing", "**90.0**", "30.0", "**5.0**"]
    assert _cells(table, "B") == ["nothing", "80.0", "**10.0**", "20.0"]

    report([path, write_results(tmp_path / "other.csv", {"data_set": "MPDD", "fpr_at_fnr_5": 0.2})])
    out = capsys.readouterr().out
    assert _cells(out, "A", "Overkill at 5 % escape") == ["nothing", "30.0", "**20.0**", "25.0"]
    assert out.count("Overkill: share of normal images") == out.count("Percent; mean over categories, then") == 1


def test_the_worst_category_stands_beside_the_mean(reported):
    values = {"weave": 0.9, "wood": 0.6, "mesh": 0.8}
    out = reported(*({"category": c, "pixel_AUPRO": v} for c, v in values.items()))
    assert _cells(out, "A", "Worst category") == ["nothing", "60.0 (Surfaces/wood)"]


def test_metrics_at_thresholds_say_what_these_were_set_on(reported):
    cells = {"class_F1": 0.9, "seg_F1": 0.4, "false_alarm_rate": 0.1, "guaranteed_rate": 0.05, "threshold_basis": "20 images"}
    rows = [{**cells, "draw": 0}, {**cells, "draw": 1, "false_alarm_rate": 0.2, "threshold_basis": "21 images"}]
    out = reported(*rows)
    basis = "20 images / and likewise 1 more"
    best = ["**90.0** ± 0.0", "**40.0** ± 0.0", "**15.0** ± 7.1", "**5.0** ± 0.0"]
    assert _cells(out, "A", "At the thresholds in force") == ["nothing", basis, *best]


def test_kinds_of_defect(reported):
    kinds = ({"crack": {"AUROC": 0.9, "AP": 0.5}}, {"crack": {"AUROC": 0.7, "AP": 0.3}, "hole": {"AUROC": 1, "AP": 1}})
    rows = [{"seed": seed, "by_defect": json.dumps(each)} for seed, each in enumerate(kinds)]
    table = reported(*rows, {"label": "B", "by_defect": json.dumps(kinds[0])}).split("## By kind of defect")[1]
    assert "| Surfaces | crack | 80.0 / 40.0 | 90.0 / 50.0 |" in table
    assert "| Surfaces | hole | 100.0 / 100.0 | n/a |" in table


def test_corrupted_images_beside_clean_ones(reported):
    shift = [{"corruption": "blur", "strength": s, "image_AUROC": 0.9, "false_alarm_rate": r} for s, r in ((1, 0.2), (2, 0.6))]
    shift = [{"class_F1": None, "seg_F1": 0.5, **each} for each in shift]
    table = reported({"image_AUROC": 0.95, "false_alarm_rate": 0.05, "shift": shift}).split("## Corrupted images")[1]
    assert "| A | none | 0 | 95.0 | n/a | n/a | 5.0 |" in table
    assert "| A | blur | 2 | 90.0 | n/a | 50.0 | 60.0 |" in table


def test_intervals_and_counts_of_images(reported):
    scores, labels = [0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1]
    counts = {"normal_images": 2, "anomalous_images": 2, "latency_ms": 12.34}
    rows = [{"seed": seed, "image_AUROC": 1.0, "scores": scores, "labels": labels, **counts} for seed in (1, 2)]
    out = reported(*rows)
    assert _cells(out, "A", "Image AUROC with its interval") == ["nothing", "100.0", "100.0 to 100.0", "4"]
    assert _cells(out, "A", "Cost")[1:7] == ["cpu", "2", "2", "2", "2", "12.3"]


def test_files_are_written_whole_with_readable_charts(tmp_path, capsys):
    labels, categories = ("A", "B | C & 50 %"), ("weave", "wood")
    shift = [{"corruption": c, "strength": s, "false_alarm_rate": 0.1} for c in ("blur", "light") for s in (1.0, 0.5)]
    for name, colour in (("normal", 40), ("anomalous", 200)):
        Image.new("RGB", (300, 200), (colour, 0, 0)).save(tmp_path / f"{name}.png")
    tested = {"images": ["anomalous.png", "normal.png", "gone.png"], "scores": [0.2, 0.8, 0.9], "labels": [1, 0, 0]}
    rows = [
        {"label": label, "category": c, "seed": seed, "shift": shift, "root": str(tmp_path), **tested, **values}
        for label, c, seed in itertools.product(labels, categories, (1, 2))
        for values in [dict.fromkeys(METRICS, 0.5 + 0.1 * seed)]
    ]
    out = tmp_path / "report"
    more = {"data_set": "MPDD", "image_AP": 0.5}
    report([write_results(tmp_path / "one.csv", *rows), write_results(tmp_path / "two.csv", more)], out)
    charts = ["categories.png", "corrupted.png", "overview.png"]
    assert sorted(path.name for path in out.iterdir()) == [*charts, "report.html", "report.md", "report.tex"]
    said = capsys.readouterr().out
    assert all(path.name in said for path in out.iterdir())
    for name in charts:
        with Image.open(out / name) as picture:
            assert min(picture.size) > 300
            assert len(picture.convert("RGB").getcolors(2**24)) > 10  # something is drawn
    markdown = (out / "report.md").read_text(encoding="utf-8")
    assert "B \\| C" in markdown
    assert "- command: dpclip benchmark --config x.yaml" in markdown
    assert "](overview.png)" in markdown
    latex = (out / "report.tex").read_text(encoding="utf-8")
    assert "B | C \\& 50 \\%" in latex
    assert "\\textbf{65.0} $\\pm$ 7.1" in latex

    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<td class=text>B | C &amp; 50 %</td>" in page
    assert "<b>65.0</b> ± 7.1" in page
    assert page.count("data:image/png;base64,") == 3
    assert set(re.findall(r"(?:src|href)=['\"]?(\w+):", page)) == {"data"}  # it needs nothing else
    # Of each model, of the first seed: one miss and two false alarms in each category, one of which has gone.
    assert page.count("<p>Missed: 2</p>") == page.count("<p>False alarms: 4</p>") == 2
    thumbnails = [Image.open(BytesIO(b64decode(each))) for each in re.findall(r"data:image/jpeg;base64,([^\"]+)", page)]
    assert len(thumbnails) == 2 * (2 + 2)
    assert {picture.size for picture in thumbnails} == {(112, 75)}
    assert page.count("no file gone.png here") == 4


def test_good_images_alone_have_no_charts(tmp_path):
    report([write_results(tmp_path / "rows.csv", {"false_alarm_rate": 0.1})], tmp_path / "out")
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".html", ".md", ".tex"}
    assert "**10.0**" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


def test_nothing_to_report_is_said(tmp_path):
    path = write_results(tmp_path / "rows.csv", {"status": "failed", "reason": "why"})
    with pytest.raises(ValueError, match="no job of these results succeeded"):
        report([path], tmp_path / "out")
    assert not (tmp_path / "out").exists()
