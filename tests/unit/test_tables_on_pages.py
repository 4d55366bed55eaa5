"""Tables on pages are those of the results that they were made of."""

import re

import pandas as pd
import pytest
from tests.pages import README
from tests.paths import ROOT

from anomalib_dpclip import Surfaces
from anomalib_dpclip.benchmark.report.command import report
from anomalib_dpclip.benchmark.rows import read_rows

RESULTS = ROOT / "benchmark_results"
WHOLE = {
    "decisions": ["guarantee"],
    "speed": ["inference", "training", "export", "photos", "photos-workers", "photos-ViT-L-14-336"],
    "backbones": ["backbones", "families"],
}
"""Results of which all tables stand on a page."""


def text_of(page: str) -> str:
    return (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")


def lines_of(results: str, *beginnings: str) -> list[str]:
    """Lines of a file of results that begin so."""
    text = (RESULTS / f"{results}.md").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.startswith(beginnings)]


@pytest.mark.parametrize(("page", "results"), [(page, each) for page, results in WHOLE.items() for each in results])
def test_all_tables_of_results(page, results):
    assert "\n".join(lines_of(results, "|")) in text_of(page)


@pytest.mark.parametrize(
    ("page", "results"),
    [("comparison", ("surfaces", "ablation")), ("large-images", ("large_images",)), ("references", ("photographs",))],
)
def test_tables_of_a_report(page, results, capsys):
    files = [RESULTS / f"{name}.csv" for name in results]
    labels = set(read_rows(*files)["label"])
    for file in files:
        report([file])
    printed = capsys.readouterr().out.splitlines()
    shown = [line for line in text_of(page).splitlines() if line.startswith("| ") and line.split("|")[1].strip() in labels]
    assert len(shown) >= 2 * len(labels)
    wrong = [line for line in shown if line not in printed]
    assert not wrong, f"run `dpclip report benchmark_results/{results[0]}.csv` and paste its tables into docs/{page}.md"


def test_table_of_the_readme(capsys):
    report([RESULTS / "surfaces.csv"])
    table = {line for line in README.read_text(encoding="utf-8").splitlines() if re.match(r"\| .*\d(\*\*)? ± \d", line)}
    assert len(table) == 7
    assert table <= set(capsys.readouterr().out.splitlines())


def test_tables_made_of_rows():
    measured = pd.read_csv(RESULTS / "surfaces.csv", comment="#")
    rows = measured[(measured["label"] == "DP-CLIP (mini)") & (measured["seed"] == 111)].set_index("category")
    taught = rows.loc[list(Surfaces.target_categories)].iterrows()
    cells = " | ".join(f"{row.image_AUROC:.3f} / {row.pixel_AUROC:.3f}" for _, row in taught)
    assert f"| the auxiliary materials | {cells} |" in text_of("comparison")


def test_parts_of_tables():
    assert "\n".join(lines_of("precision", "| target", "| ---", "| mean")) in text_of("speed")
    beginnings = ("| task", "| inference | ", "| training step", "| pixel")
    shown = [line for line in text_of("speed").partition("## On a GPU")[2].splitlines() if line.startswith(beginnings)]
    assert len(shown) > 10
    assert set(shown) <= set(lines_of("gpu", *beginnings))
