"""The commands of README and pages, from top to bottom in one folder, as a reader types them; learning is cut short.

Each page goes on with what those before it have left. `run_shell` compares the digests of what trainings have left before and
after each command that trains nothing. `make walk` does all of it once more in the same folder.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tests.pages import (
    OWN_DATA,
    blocks,
    blocks_of,
    own_data_commands,
    readme_commands,
    readme_section,
    run_shell,
    short_checkout,
    trained_files,
)
from tests.paths import ROOT
from tests.pictures import picture

from anomalib_dpclip.data.listing.command import check_metadata

GUARANTEE = (
    "a new normal image of the same source exceeds the image threshold with a probability of at most 5 %, and the pixel "
    "threshold anywhere with at most 5 %; from 20 normal images of"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, drawn_surfaces):
    """As a checkout, with photos sorted as the page on own data does it."""
    folder = short_checkout(tmp_path_factory.mktemp("pages"), drawn_surfaces)
    run_shell(blocks("own-data", "bash", "Sort the photos into folders"), folder)
    return folder


@pytest.fixture(scope="module")
def readme(folder):
    """What the README's commands print."""
    return run_shell(readme_commands(), folder)


@pytest.fixture(scope="module")
def own_data(folder, readme):
    return run_shell(own_data_commands(), folder)


@pytest.fixture(scope="module")
def adapter_files(folder, readme):
    return run_shell(blocks("adapter-files", "bash"), folder)


@pytest.fixture(scope="module")
def decisions(folder, adapter_files):
    return run_shell(blocks("decisions", "bash"), folder)


@pytest.fixture(scope="module")
def references(folder, decisions):
    return run_shell(blocks("references", "bash"), folder)


@pytest.fixture(scope="module")
def deployment(folder, decisions):
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    return run_shell(blocks("deployment", "bash"), folder)


def test_readme(readme, folder):
    photo = r"new_photos/\d+\.png  results/predict/images/\d+\.png\.jpg"
    line = rf"^0\.\d+  (?:normal   |anomalous)     {photo}  [\d.]+ % of 8 good photos score lower, most like \d+\.png$"
    assert len(re.findall(line, readme.stdout, re.MULTILINE)) == 6
    said = "\nThresholds: the highest of 8 good photos, each scored by the others; no guarantee for new images.\n"
    assert said in readme.stdout
    table = re.findall(r"^ *(the backbone alone|DP-CLIP.*?)  .*?((?: +[\d.]+){4})$", readme.stdout, re.MULTILINE)
    assert [label for label, _ in table] == [
        *("the backbone alone", "DP-CLIP", "DP-CLIP with 8 good photos", "DP-CLIP with the lot"),
    ]
    pixel_auroc = [float(values.split()[1]) for _, values in table]
    assert min(pixel_auroc[2:]) > 90 > pixel_auroc[0]
    assert (folder / "results/good_photos/DPCLIP/Surfaces/weave/latest/contact_sheet.png").is_file()


def metrics(output: str) -> list[dict[str, float]]:
    """The tables of test metrics that were printed, in their order."""
    rows = re.findall(r"((?:image|pixel)_\w+)\s+│\s+([\d.e-]+|nan)\s", output)
    return [{name: float(value) for name, value in rows[i : i + 7]} for i in range(0, len(rows), 7)]


def test_own_data(own_data, folder):
    page = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")
    expected = re.search(r"^```\n(metadata/photos.*?)^```", page, re.MULTILINE | re.DOTALL)[1].splitlines()
    assert set(expected[:2]) <= set(own_data.stdout.splitlines())
    assert expected[2] in own_data.stderr
    listed = (folder / "metadata/photos/full-shot.jsonl").read_text().splitlines()
    assert json.loads(blocks("own-data", "json")) in [json.loads(line) for line in listed]

    trained, again, others, synthetic = metrics(own_data.stdout)
    assert trained == again, "the checkpoint carries its thresholds"
    assert not any(np.isnan(value) for value in [*trained.values(), *synthetic.values()])
    assert {name for name, value in others.items() if np.isnan(value)} == {name for name in others if "pixel" in name}

    predicted = folder / "results" / "DPCLIP" / "new_photos" / "latest"
    results = pd.read_csv(predicted / "results.csv")
    assert [Path(path).name for path in results.path] == [f"{index:03}.png" for index in (0, 1, 2, 10, 11, 12)]
    assert results.score.between(0, 1).all()
    assert set(results.label) <= {"normal", "anomalous"}
    assert len(list((predicted / "images").iterdir())) == 6, "a heat map for each photo"


def test_adapter_files(adapter_files, folder):
    assert "backbone         mini" in adapter_files.stdout
    for file in ("adapters.md", "published.pth", "from_published.safetensors"):
        assert (folder / file).is_file()


def test_decisions(decisions, folder):
    assert f"Calibrated: {GUARANTEE} cloth." in decisions.stdout
    assert f"thresholds       {GUARANTEE} cloth\n" in decisions.stdout
    assert GUARANTEE in (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
    tested = list((folder / "datasets/Surfaces/weave/test").glob("*/*.png"))
    assert len(pd.read_csv(next((folder / "tested").rglob("decisions.csv")))) == len(tested)
    first, second = (
        torch.load(folder / name / "weights" / "lightning" / "model.ckpt", weights_only=True)["state_dict"]
        for name in ("calibrated", "calibrated_normal")
    )
    assert any(".calibration." in name and not torch.equal(value, second[name]) for name, value in first.items())
    for place, labels in (("results", {"normal", "anomalous"}), ("uncalibrated", {"uncalibrated"})):
        results = pd.read_csv(folder / place / "DPCLIP" / "incoming" / "latest" / "results.csv")
        assert len(results) == 4
        assert set(results.label) <= labels


def test_references(references, folder):
    corrected = folder / "with_photos/weights/lightning/model-corrected.ckpt"
    assert corrected.is_file()
    assert f"Written: {corrected.relative_to(folder)}\n" in references.stdout
    before, after = map(float, re.search(r"^([\d.]+) -> ([\d.]+)  \w.*030\.png$", references.stdout, re.MULTILINE).groups())
    assert after < before


def test_deployment(deployment, folder):
    assert deployment.stdout.count("class            weave\n") == 3
    by_hand = "basis            the image and pixel threshold was set by hand; no guarantee for new images\n"
    assert by_hand in deployment.stdout
    assert f"basis            {GUARANTEE} good\n" in deployment.stdout
    assert "class 1          wood\n" in deployment.stdout
    for file in ("onnx/model.onnx", "openvino/model.xml", "openvino/model.bin"):
        assert (folder / "exported" / "weights" / file).is_file()
    python = blocks("deployment", "python")
    done = run_shell(f"python - <<'END'\n{python}\nEND\n", folder)
    assert 0 <= float(done.stdout.split()[-1].strip("[]tensor()")) <= 1


def test_the_command_line_tells_the_model_s_arguments(tmp_path):
    told = run_shell(blocks("arguments", "bash"), tmp_path).stdout
    for argument in ("k_shot", "false_alarm_rate", "architecture.help"):
        assert re.search(rf"--model\.{argument}\s", told)
    assert "--model.coreset_sampling_ratio" not in told, "another model's"


def test_commands_of_the_readme_are_on_the_page_of_own_data():
    (commands,) = blocks_of(readme_section(OWN_DATA), "bash")
    commands = re.split(r"(?<!\\)\n", commands.strip())
    assert len(commands) == 3
    assert not [command for command in commands if command not in blocks("own-data", "bash")]


def test_recipe_for_elpv(tmp_path, monkeypatch):
    """With a stand-in of the layout of elpv-dataset: a list of paths, probabilities and types of cells."""
    data = tmp_path / "site" / "elpv_dataset" / "data"
    (data / "images").mkdir(parents=True)
    (data.parent / "__init__.py").touch()
    rows = []
    for index, probability in enumerate(["0.0", "0.3333333333333333", "0.6666666666666666", "1.0"]):
        picture(data / "images" / f"cell{index:04}.png", 60 * index)
        rows.append(f"images/cell{index:04}.png  {probability}  {'mono' if index % 2 else 'poly'}\n")
    (data / "labels.csv").write_text("".join(rows))
    monkeypatch.setenv("PYTHONPATH", f"{data.parents[1]}:{ROOT}", prepend=":")
    (tmp_path / "list_elpv.py").write_text(blocks("own-data", "python"))
    done = run_shell(f"{sys.executable} list_elpv.py", tmp_path)
    assert Path(done.stdout.strip()) == data
    metadata = tmp_path / "metadata" / "elpv" / "full-shot.jsonl"
    samples = [json.loads(line) for line in metadata.read_text().splitlines()]
    assert [sample["label"] for sample in samples] == [0, 0, 1, 1]
    assert samples[2] == {"image_path": "images/cell0002.png", "label": 1, "class_name": "solar cell"}
    assert check_metadata(metadata, data) == []


@pytest.mark.walk
def test_all_pages_once_more(folder, own_data, references, deployment):
    first = trained_files(folder)
    run_shell(blocks("own-data", "bash", "Sort the photos into folders"), folder)
    for commands in (readme_commands(), own_data_commands()):
        run_shell(commands, folder)
    for name in ("adapter-files", "decisions", "references", "deployment"):
        run_shell(blocks(name, "bash"), folder)
    second = trained_files(folder)
    assert first.items() <= second.items(), "a training has a folder of its own"
    assert len(second) > len(first)
