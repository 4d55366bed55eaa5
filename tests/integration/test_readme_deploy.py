"""The README's sections on thresholds and deployment, run as they are written, the second on what the first has left."""

import shutil

import pandas as pd
import pytest
import torch
import yaml
from tests.readme import blocks, run_shell

from anomalib_dpclip import save_adapters


@pytest.fixture(scope="module")
def folder(tmp_path_factory, surfaces_root):
    """Trained adapters, photos of weave sorted as the sections say, and the procedural surfaces in their usual place."""
    from anomalib.engine import Engine

    from anomalib_dpclip import DPCLIP, Surfaces

    folder = tmp_path_factory.mktemp("readme")
    model = DPCLIP(backbone="mini", auxiliary="Surfaces/brick", auxiliary_root=str(surfaces_root), shots=8, visualizer=False)
    engine = Engine(accelerator="cpu", max_epochs=1, default_root_dir=folder / "runs", logger=False, enable_progress_bar=False)
    engine.fit(model, datamodule=Surfaces(root=surfaces_root, category="weave", val_split_mode="none"))
    save_adapters(model, folder / "adapters.safetensors")
    (folder / "datasets").mkdir()
    (folder / "datasets" / "Surfaces").symlink_to(surfaces_root)
    test = surfaces_root / "weave" / "test"
    for source, target, images in (("good", "good", range(20)), ("good", "incoming", (30, 31)), ("hole", "incoming", (0, 1))):
        (folder / "photos" / target).mkdir(parents=True, exist_ok=True)
        for index in images:
            shutil.copy(test / source / f"{index:03}.png", folder / "photos" / target / f"{source}{index}.png")
    shutil.copy(test / "hole" / "000.png", folder / "photo.png")
    return folder


@pytest.fixture(scope="module")
def thresholds(folder):
    """What the section on thresholds printed."""
    return run_shell(blocks("Choose a threshold", "bash"), folder)


def test_choose_a_threshold(thresholds, folder):
    del thresholds
    calibrated = torch.load(folder / "calibrated" / "weights" / "lightning" / "model.ckpt", weights_only=True)
    assert any("calibration" in name for name in calibrated["state_dict"])
    for place in (
        folder / "results" / "DPCLIP" / "incoming" / "latest",
        folder / "uncalibrated" / "DPCLIP" / "incoming" / "latest",
    ):
        results = pd.read_csv(place / "results.csv")
        assert len(results) == 4
        assert set(results.label) <= {"normal", "anomalous"}


def test_the_post_processor_s_file(folder):
    section = yaml.safe_load(blocks("Choose a threshold", "yaml"))
    assert section == {"class_path": "anomalib_dpclip.DPCLIPPostProcessor", "init_args": {"false_alarm_rate": 0.05}}


def test_deploy(thresholds, folder):
    del thresholds
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    run_shell(blocks("Deploy", "bash"), folder)
    for file in ("onnx/model.onnx", "openvino/model.xml", "openvino/model.bin"):
        assert (folder / "exported" / "weights" / file).is_file()
    python = blocks("Deploy", "python")
    done = run_shell(f"python - <<'END'\n{python}\nEND\n", folder)
    assert 0 <= float(done.stdout.split()[-1].strip("[]tensor()")) <= 1
