import ast
import importlib
import inspect
import json
import re
from collections import ChainMap
from dataclasses import fields
from pathlib import Path

import pandas as pd
import pytest
import yaml
from anomalib.data import get_datamodule
from scripts.arguments_page import arguments_page
from scripts.batch_flow import BOXES, batch_flow
from tests.pages import PAGES, README, blocks_of
from tests.paths import ROOT

from anomalib_dpclip import DPCLIP, Surfaces
from anomalib_dpclip.benchmark.config import jobs_of, read_config
from anomalib_dpclip.benchmark.report.command import report
from anomalib_dpclip.benchmark.rows import read_rows
from anomalib_dpclip.cli import COMMANDS, function_of
from anomalib_dpclip.model.arguments import GROUPS, Training

PACKAGE = ROOT / "src" / "anomalib_dpclip"
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *PAGES]


def text_of(page: str) -> str:
    return (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")


def anchors_of(path: Path) -> set[str]:
    """What headings are called in links, as GitHub and mkdocs make it."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_relative_links_lead_somewhere(path):
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.is_file(), f"{path.name}: {link}"
        assert not anchor or anchor in anchors_of(target), f"{path.name}: {link}"


def test_every_page_is_in_the_navigation_the_index_and_the_readme_which_is_short():
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    sections = [pages for section in navigation for pages in section.values()]
    listed = [name for pages in sections for name in ([pages] if isinstance(pages, str) else [*ChainMap(*pages).values()])]
    assert sorted(listed) == [path.name for path in PAGES]
    readme = README.read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 150
    for name in set(listed) - {"index.md"}:
        assert f"({name}" in text_of("index"), name
        assert f"(docs/{name}" in readme, name


def test_page_of_arguments_is_what_the_docstrings_say():
    assert text_of("arguments") == arguments_page(), "run `python -m scripts.arguments_page`"


def test_picture_of_the_architecture_is_what_its_script_makes():
    assert (ROOT / "docs" / "batch_flow.svg").read_text(encoding="utf-8") == batch_flow(), "run `python -m scripts.batch_flow`"


def test_boxes_of_the_picture_name_modules_that_are_there():
    named = [line.partition(",")[0] for box in BOXES.values() for line in box.lines if re.match(r"[a-z_]+/", line)]
    assert len(named) >= len(BOXES)
    for name in named:
        room = name.partition(" ")[0]
        assert (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").is_file(), name


@pytest.mark.parametrize("page", ["method", "architecture"])
def test_code_that_pages_name_is_there(page):
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    names = [name for name in re.findall(r"`([a-z_]+(?:\.\w+)+)`", text_of(page)) if name.split(".")[0] in rooms]
    assert names
    for name in names:
        room, module, *attributes = name.split(".")
        found = importlib.import_module(f"anomalib_dpclip.{room}.{module}")
        for attribute in attributes:
            found = getattr(found, attribute)


def test_rooms_of_the_architecture_are_the_folders():
    rooms = re.findall(r"^\| `(\w+)/` \|", text_of("architecture"), flags=re.MULTILINE)
    assert sorted(rooms) == sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def test_rule_of_the_architecture_is_the_contract():
    contract = re.search(r"layers = \[(.*?)\n\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL)[1]
    layers = [set(re.findall(r"\w+", layer)) for layer in re.findall(r'"(.*?)"', contract)]
    rule = re.search(r"^{files, .* < .*$", text_of("architecture"), re.MULTILINE)[0]
    assert [set(re.findall(r"\w+", layer)) for layer in rule.split(" < ")] == layers[:1:-1]  # the command is no room


def test_flags_that_pages_use_are_arguments():
    everything = "".join(path.read_text(encoding="utf-8") for path in [README, *PAGES])
    flags = set(re.findall(r"--model\.(\w+(?:\.\w+)?)", everything)) - {"NAME", "help"}
    known = set(inspect.signature(DPCLIP.__init__).parameters)
    known |= {f"{group}.{item.name}" for group, kind in GROUPS.items() for item in fields(kind)}
    assert {flag for flag in flags if "." in flag}
    assert flags <= known


def test_flags_that_pages_give_to_dpclip_are_arguments():
    shell = "\n".join(block for path in [README, *PAGES] for block in blocks_of(path.read_text(encoding="utf-8"), "bash"))
    commands = re.findall(r"^dpclip (\w+)((?:.*\\\n)*.*)", shell, flags=re.MULTILINE)
    assert set(COMMANDS) <= set(re.findall(r"dpclip (\w+)", "".join(path.read_text(encoding="utf-8") for path in PAGES)))
    for name, options in commands:
        known = {parameter.rstrip("_") for parameter in inspect.signature(function_of(COMMANDS[name])).parameters} | {"help"}
        assert set(re.findall(r"--(\w+)", options)) <= known, name


def test_the_scorer_of_the_page_scores():
    exec("\n".join(blocks_of(text_of("add-a-scorer"), "python")), names := {})
    normal, odd = names["scores"].tolist()
    assert 0 <= normal < odd <= 1
    assert names["model"].scorer.name == "colour"


@pytest.mark.parametrize("path", [README, *PAGES], ids=lambda path: path.stem)
def test_python_on_pages_is_whole_and_imports_what_is_there(path):
    for block in blocks_of(path.read_text(encoding="utf-8"), "python"):
        for statement in ast.parse(block).body:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                exec(ast.unparse(statement), {})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stored_without_outputs(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


RESULTS = ROOT / "benchmark_results"
WHOLE = {
    "decisions": ["guarantee"],
    "speed": ["inference", "training", "export", "photos", "photos-workers", "photos-ViT-L-14-336"],
    "backbones": ["backbones", "families"],
}
"""Results of which all tables stand on a page."""


def lines_of(results: str, *beginnings: str) -> list[str]:
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


def test_model_config_has_the_code_s_defaults():
    arguments = yaml.safe_load((ROOT / "configs/model/dpclip.yaml").read_text())["model"]["init_args"]
    training = {item.name: item.default for item in fields(Training)}
    said = arguments.pop("training")
    assert {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()} == training
    parameters = inspect.signature(DPCLIP.__init__).parameters
    own = {"image_size": 518, "tiles": 1}  # spelt out there, derived here
    for name, value in arguments.items():
        assert value == own.get(name, parameters[name].default), name


@pytest.mark.parametrize("path", [path for path in CONFIGS if path.parent.name == "data"], ids=lambda path: path.stem)
def test_data_configs_build_their_data_module(path):
    config = yaml.safe_load(path.read_text())
    assert type(get_datamodule(config)).__name__ == config["class_path"].rpartition(".")[2]


@pytest.mark.parametrize("path", [path for path in CONFIGS if path.parent.name == "benchmark"], ids=lambda path: path.stem)
def test_benchmark_configs_are_whole(path):
    jobs = jobs_of(read_config(path))
    assert jobs
    assert len({job.key for job in jobs}) == len(jobs)


def test_quickstart_config_parses_through_the_anomalib_s_parser():
    from anomalib.cli import AnomalibCLI

    parser = AnomalibCLI(args=["train", "--config", str(ROOT / "configs/quickstart.yaml")], run=False)
    assert parser.config is not None


def test_the_oldest_versions_are_the_lower_bounds():
    script = (ROOT / "scripts" / "test_matrix.sh").read_text()
    oldest, newest = (
        re.search(rf'^ +{name}\) echo "(.*)" ;;$', script, re.MULTILINE)[1].split() for name in ("oldest", "newest")
    )
    bounds = re.findall(r'^    "(\w+)>=([\d.]+)', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert set(oldest) <= {f"{name}=={version}" for name, version in bounds}
    assert [pin.partition("==")[0] for pin in oldest] == newest
