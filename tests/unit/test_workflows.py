"""What runs elsewhere calls what runs here: workflows, hooks and notebooks."""

import json
import re

import pytest
import yaml
from tests.paths import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
MATRIX = (ROOT / "scripts" / "test_matrix.sh").read_text()


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
