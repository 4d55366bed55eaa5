"""What the page on own data says beside the commands that run with all pages'."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.pages import README, blocks, blocks_of, run_shell
from tests.paths import ROOT

from anomalib_dpclip.data.listing.command import check_metadata


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
