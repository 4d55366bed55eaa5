"""Files that earlier versions wrote are read, without running anything in them, and mean what they meant."""

import pytest
import torch
from anomalib.utils.serialization import anomalib_safe_globals
from safetensors.torch import load_file
from tests.arguments import make_dpclip
from tests.data.golden.make_golden import GOLDEN, answers

from anomalib_dpclip import DPCLIP
from anomalib_dpclip.adapter_files.adapter_file import FORMAT_VERSION

VERSIONS = sorted(int(path.stem.split("-v")[1]) for path in GOLDEN.glob("answers-v*.safetensors"))
ARCHITECTURE = {"backbone": "mini", "adapter_layers": [0], "tap_layers": [3, 6], "class_name": "weave", "visualizer": False}


def assert_same_answers(model, version):
    expected = load_file(GOLDEN / f"answers-v{version}.safetensors")
    found = answers(model)
    assert found.keys() == expected.keys()
    assert expected["anomaly_map"].std() > 0.01
    for name, value in expected.items():
        # Machines round sums in their own order.
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_this_version_has_golden_files():
    assert list(range(1, FORMAT_VERSION + 1)) == VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
def test_a_checkpoint_loads(version):
    path = GOLDEN / f"checkpoint-v{version}.ckpt"
    assert_same_answers(DPCLIP.load_from_checkpoint(path, weights_only=True), version)
    with anomalib_safe_globals():
        content = torch.load(path, weights_only=True)
    assert content["dpclip"]["format_version"] == version
    assert content["dpclip"]["learned_from"] == ["Surfaces/brick"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["adapters-v{}.safetensors", "checkpoint-v{}.ckpt"])
def test_adapters_load(version, name):
    model = make_dpclip(weights=GOLDEN / name.format(version), **ARCHITECTURE)
    assert model.provenance.format_version == version
    assert model.provenance.learned_from == ["Surfaces/brick"]
    assert model.provenance.epochs == 1
    # The checkpoint is calibrated on its target, adapters alone on what they have learned from: the maps' scale differs.
    expected = load_file(GOLDEN / f"answers-v{version}.safetensors")
    found = answers(model)
    for part in ("last_tap", "detection"):
        torch.testing.assert_close(found[part], expected[part], rtol=1e-4, atol=1e-4)
    assert model.post_processor.calibration.is_set


@pytest.mark.parametrize("version", VERSIONS)
def test_training_goes_on_from_a_checkpoint(version, surfaces_root, make_engine, target):
    training = {"auxiliary": "Surfaces/brick", "auxiliary_root": str(surfaces_root), "shots": 6, "learning_rate": 2e-3}
    model, engine = make_dpclip(**ARCHITECTURE, **training), make_engine(max_epochs=2, limit_val_batches=1)
    engine.fit(model=model, datamodule=target, ckpt_path=GOLDEN / f"checkpoint-v{version}.ckpt")
    assert engine.trainer.current_epoch == 2
    assert engine.trainer.global_step == 2 * 2  # two batches of the six images an epoch


def test_a_checkpoint_of_a_newer_version_is_named_with_what_to_do(tmp_path):
    with anomalib_safe_globals():
        content = torch.load(GOLDEN / "checkpoint-v1.ckpt", weights_only=True)
    content["dpclip"]["format_version"] = FORMAT_VERSION + 1
    torch.save(content, tmp_path / "newer.ckpt")
    message = f"format version {FORMAT_VERSION + 1}, this package knows up to {FORMAT_VERSION}: upgrade anomalib-dpclip"
    with pytest.raises(ValueError, match=message):
        DPCLIP.load_from_checkpoint(tmp_path / "newer.ckpt")
