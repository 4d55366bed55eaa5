"""The pages on decisions and deployment, run as they are written, the second on what the first has left."""

import pandas as pd
import pytest
import torch
import yaml
from tests.arguments import make_dpclip
from tests.pages import blocks, run_shell
from tests.paths import ROOT

from anomalib_dpclip import save_adapters


@pytest.fixture(scope="module")
def folder(tmp_path_factory, surfaces_root):
    """Trained adapters, and the procedural surfaces in their usual place."""
    from anomalib.engine import Engine

    from anomalib_dpclip import Surfaces

    folder = tmp_path_factory.mktemp("pages")
    as_in_the_quickstart = {"backbone": "mini", "temperature": "backbone", "detection": "class_token"}
    learned = {"auxiliary": "Surfaces/brick", "auxiliary_root": str(surfaces_root), "shots": 8}
    model = make_dpclip(**as_in_the_quickstart, **learned, visualizer=False)
    engine = Engine(accelerator="cpu", max_epochs=1, default_root_dir=folder / "runs", logger=False, enable_progress_bar=False)
    engine.fit(model, datamodule=Surfaces(root=surfaces_root, category="weave", val_split_mode="none"))
    save_adapters(model, folder / "adapters.safetensors")
    (folder / "datasets").mkdir()
    (folder / "datasets" / "Surfaces").symlink_to(surfaces_root)
    return folder


@pytest.fixture(scope="module")
def thresholds(folder):
    """What the page on decisions printed."""
    return run_shell(blocks("decisions", "bash"), folder)


GUARANTEE = (
    "a new normal image of the same source exceeds the image threshold with a probability of at most 5 %, and the pixel "
    "threshold anywhere with at most 5 %; from 20 normal images of"
)


def test_decisions(thresholds, folder):
    assert f"Calibrated: {GUARANTEE} cloth." in thresholds.stdout
    assert f"thresholds       {GUARANTEE} cloth\n" in thresholds.stdout
    assert GUARANTEE in (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
    assert len(pd.read_csv(next((folder / "tested").rglob("decisions.csv")))) == 160
    calibrations = []
    for name in ("calibrated", "calibrated_normal"):
        (file,) = (folder / name / "weights" / "lightning").iterdir()
        assert file.name == "model.ckpt"
        state = torch.load(file, weights_only=True)["state_dict"]
        calibrations.append({name: value for name, value in state.items() if ".calibration." in name})
    assert calibrations[0].keys() == calibrations[1].keys() != set()
    assert any(not torch.equal(value, calibrations[1][name]) for name, value in calibrations[0].items())
    for place, labels in (("results", {"normal", "anomalous"}), ("uncalibrated", {"uncalibrated"})):
        results = pd.read_csv(folder / place / "DPCLIP" / "incoming" / "latest" / "results.csv")
        assert len(results) == 4
        assert set(results.label) <= labels


def test_the_post_processor_s_file():
    file = yaml.safe_load(blocks("decisions", "yaml"))
    assert file == {"class_path": "anomalib_dpclip.DPCLIPPostProcessor", "init_args": {"image_sensitivity": 0.6}}


def test_deployment(thresholds, folder):
    del thresholds
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    done = run_shell(blocks("deployment", "bash"), folder)
    assert done.stdout.count("class            weave\n") == 3
    assert "basis            the image and pixel threshold was set by hand; no guarantee for new images\n" in done.stdout
    assert f"basis            {GUARANTEE} good\n" in done.stdout
    assert "class 1          wood\n" in done.stdout
    for file in ("onnx/model.onnx", "openvino/model.xml", "openvino/model.bin"):
        assert (folder / "exported" / "weights" / file).is_file()
    python = blocks("deployment", "python")
    done = run_shell(f"python - <<'END'\n{python}\nEND\n", folder)
    assert 0 <= float(done.stdout.split()[-1].strip("[]tensor()")) <= 1


def test_adapter_files(folder):
    """After the file of the quickstart is there, which the first command of the page makes."""
    commands = blocks("adapter-files", "bash").partition("latest/weights/lightning/model.ckpt --to adapters.safetensors\n")[2]
    done = run_shell(commands, folder)
    assert "backbone         mini" in done.stdout
    for file in ("published.pth", "from_published.safetensors"):
        assert (folder / file).is_file()
