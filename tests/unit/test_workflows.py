"""What runs elsewhere calls what runs here: workflows, hooks and notebooks."""

import json
import re

import pytest
import yaml
from tests.paths import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
MATRIX = (ROOT / "scripts" / "test_matrix.sh").read_text()


def matrix_of(job):
    """What a job of the tests is repeated over."""
    return yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"][job]["strategy"]["matrix"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_step_of_a_workflow_is_a_make_target_or_a_pinned_action(path):
    steps = [step for job in yaml.safe_load(path.read_text())["jobs"].values() for step in job["steps"]]
    assert steps
    for step in steps:
        if "run" in step:
            command, target, *_ = step["run"].split()
            assert (command, target in TARGETS) == ("make", True), step["run"]
        else:
            assert re.fullmatch(r"[\w./-]+@(v\d+|release/v\d+)", step["uses"]), step["uses"]


def test_only_what_publishes_may_ask_for_a_token():
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]
    assert {name: job.get("permissions") for name, job in jobs.items()} == {"build": None, "publish": {"id-token": "write"}}
    assert jobs["publish"]["environment"] == "pypi"


def test_the_supported_pythons_are_tested():
    oldest = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())[1]
    assert matrix_of("test")["python"][0] == oldest


def test_the_sets_of_versions_are_named_and_the_oldest_are_the_lower_bounds():
    named = dict(re.findall(r'^ +([a-z-]+)\) echo "(.*)" ;;$', MATRIX, flags=re.MULTILINE))
    used = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]["versions"]["strategy"]["matrix"][
        "versions"
    ]
    assert {*used, "anomalib-main"} == set(named)
    bounds = dict(re.findall(r'^    "(\w+)>=([\d.]+)', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE))
    oldest = dict(pin.split("==") for pin in named["oldest"].split())
    assert oldest == {name: bounds[name] for name in oldest}
    assert set(oldest) == set(named["newest"].split())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stored_without_outputs(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
