"""The commands of the page on own data, run as they are written."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.pages import README, blocks, blocks_of, run_shell
from tests.paths import ROOT

from anomalib_dpclip.data.listing.check import check_metadata

BEFORE_ELPV = ("Sort the photos into folders", "List and check them", "Train and test", "Test again", "Predict")


@pytest.fixture
def folder(tmp_path, drawn_surfaces):
    """The quickstart's data in its usual place."""
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "Surfaces").symlink_to(drawn_surfaces)
    return tmp_path


def metrics(output: str) -> list[dict[str, float]]:
    """The tables of test metrics that were printed, in their order."""
    rows = re.findall(r"((?:image|pixel)_\w+)\s+│\s+([\d.e-]+|nan)\s", output)
    return [{name: float(value) for name, value in rows[i : i + 7]} for i in range(0, len(rows), 7)]


def test_commands_run_as_written(folder):
    sections = (*BEFORE_ELPV, "Without any labelled set")
    done = run_shell("\n".join(blocks("own-data", "bash", section) for section in sections), folder)
    expected = re.search(r"^```\n(metadata/photos.*?)^```", page(), re.MULTILINE | re.DOTALL)[1].splitlines()
    assert set(expected[:2]) <= set(done.stdout.splitlines())
    assert expected[2] in done.stderr
    trained, again, others, synthetic = metrics(done.stdout)
    assert trained == again, "the checkpoint carries its thresholds"
    assert not any(np.isnan(value) for value in [*trained.values(), *synthetic.values()])
    assert {name for name, value in others.items() if np.isnan(value)} == {name for name in others if "pixel" in name}

    predicted = folder / "results" / "DPCLIP" / "new_photos" / "latest"
    results = pd.read_csv(predicted / "results.csv")
    assert [Path(path).name for path in results.path] == [f"{index:03}.png" for index in (0, 1, 2, 10, 11, 12)]
    assert results.score.between(0, 1).all()
    assert set(results.label) <= {"normal", "anomalous"}
    assert len(list((predicted / "images").iterdir())) == 6, "a heat map for each photo"


def test_line_of_the_list_is_one_that_is_written(folder):
    run_shell("\n".join(blocks("own-data", "bash", section) for section in BEFORE_ELPV[:2]), folder)
    shown = json.loads(blocks("own-data", "json"))
    assert shown in [json.loads(line) for line in (folder / "metadata/photos/full-shot.jsonl").read_text().splitlines()]


def test_commands_of_the_readme_are_on_the_page():
    heading = "## Learning for your own data, in three commands\n"
    section = README.read_text(encoding="utf-8").partition(heading)[2].partition("\n## ")[0]
    (commands,) = blocks_of(section, "bash")
    commands = re.split(r"(?<!\\)\n", commands.strip())
    assert len(commands) == 3
    missing = [command for command in commands if command not in blocks("own-data", "bash")]
    assert not missing


@pytest.fixture
def elpv(tmp_path, monkeypatch):
    """A stand-in with the layout of elpv-dataset: a list of paths, probabilities and types of cells."""
    data = tmp_path / "site" / "elpv_dataset" / "data"
    (data / "images").mkdir(parents=True)
    (data.parent / "__init__.py").touch()
    rows = []
    for index, probability in enumerate(["0.0", "0.3333333333333333", "0.6666666666666666", "1.0"]):
        Image.fromarray(np.full((30, 30), 60 * index, dtype=np.uint8)).save(data / "images" / f"cell{index:04}.png")
        rows.append(f"images/cell{index:04}.png  {probability}  {'mono' if index % 2 else 'poly'}\n")
    (data / "labels.csv").write_text("".join(rows))
    monkeypatch.setenv("PYTHONPATH", f"{data.parents[1]}:{ROOT}", prepend=":")
    return data


def test_recipe_for_elpv(elpv, tmp_path):
    (tmp_path / "list_elpv.py").write_text(blocks("own-data", "python"))
    done = run_shell(f"{sys.executable} list_elpv.py", tmp_path)
    assert Path(done.stdout.strip()) == elpv
    metadata = tmp_path / "metadata" / "elpv" / "full-shot.jsonl"
    samples = [json.loads(line) for line in metadata.read_text().splitlines()]
    assert [sample["label"] for sample in samples] == [0, 0, 1, 1]
    assert samples[2] == {"image_path": "images/cell0002.png", "label": 1, "class_name": "solar cell"}
    assert check_metadata(metadata, elpv) == []


def page() -> str:
    return (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")
