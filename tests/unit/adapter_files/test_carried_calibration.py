"""Adapters carry thresholds and where they come from: into a model, and out of it again."""

from dataclasses import replace

import pytest
import torch
from tests.arguments import make_dpclip
from tests.data.golden.make_golden import GOLDEN

from anomalib_dpclip.adapter_files.read_and_write import read_adapters, write_adapters
from anomalib_dpclip.adapter_files.save_and_load import adapter_tensors, load_adapters, save_adapters


@pytest.fixture
def lightning_model():
    return make_dpclip(backbone="mini")


def set_calibration(model):
    calibration = model.post_processor.auxiliary_calibration
    calibration.map_knots.copy_(torch.tensor([0.0, 0.4, 0.5, 0.6, 1.0]))
    calibration.is_set.fill_(True)


def test_calibration_and_provenance_travel_with_the_adapters(tmp_path, lightning_model):
    set_calibration(lightning_model)
    lightning_model.provenance = replace(lightning_model.provenance, learned_from=["VisA/candle"], epochs=7)
    path = save_adapters(lightning_model, tmp_path / "a.safetensors")

    loaded = make_dpclip(backbone="mini", weights=path)
    for calibration in (loaded.post_processor.calibration, loaded.post_processor.auxiliary_calibration):
        assert calibration.is_set
        assert calibration.thresholds.pixel == 0.5
        torch.testing.assert_close(calibration.map_knots[1], torch.tensor(0.4))
    assert loaded.provenance == lightning_model.provenance.with_arguments(lightning_model.configuration.as_dict())
    assert read_adapters(save_adapters(loaded, tmp_path / "b.safetensors")).provenance.learned_from == ["VisA/candle"]
    assert make_dpclip(backbone="mini", weights=path, post_processor=False).provenance.epochs == 7


@pytest.mark.parametrize("says_its_size", [True, False])
def test_thresholds_of_another_image_size_stay_out(tmp_path, lightning_model, caplog, says_its_size):
    set_calibration(lightning_model)
    path = save_adapters(lightning_model, tmp_path / "a.safetensors")
    assert read_adapters(path).provenance.arguments["image_size"] == 140, "the default size, which nobody named"
    if not says_its_size:
        path = GOLDEN / "adapters-v1.safetensors"  # written when it was not said
    assert make_dpclip(weights=path).post_processor.calibration.is_set
    assert make_dpclip(weights=path, image_size=140).post_processor.calibration.is_set
    assert "thresholds" not in caplog.text
    other = make_dpclip(weights=path, image_size=112)
    for calibration in (other.post_processor.calibration, other.post_processor.auxiliary_calibration):
        assert not calibration.is_set
        assert not calibration.threshold_basis
    assert f"the thresholds in {path} are of image_size=140 (now 112) and are left out" in caplog.text
    assert other.is_uncalibrated
    again = read_adapters(save_adapters(other, tmp_path / "b.safetensors"))
    assert (again.provenance.arguments["image_size"], again.provenance.calibration_basis) == (112, "")


def test_published_adapters_belong_to_the_backbone_they_were_put_on_with_no_thresholds(tmp_path, lightning_model):
    published = save_adapters(lightning_model, tmp_path / "a.pth")
    set_calibration(lightning_model)
    lightning_model.provenance = replace(lightning_model.provenance, learned_from=["VisA/candle"], epochs=7)
    load_adapters(lightning_model, published)
    known = lightning_model.provenance
    assert not lightning_model.post_processor.auxiliary_calibration.is_set
    assert (known.learned_from, known.epochs, known.backbone) == ([], 0, "mini")
    assert known.fingerprint == lightning_model.model.backbone_fingerprint
    checkpoint = {}
    lightning_model.on_save_checkpoint(checkpoint)
    make_dpclip(backbone="mini").on_load_checkpoint(checkpoint)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("map_knots", [0.0, 0.4, 0.4, 0.6, 1.0], "map_knots that do not ascend"),
        ("score_knots", [0.0, 0.4, 0.3, 0.6, 1.0], "score_knots that do not ascend"),
        ("map_range", [0.1, torch.nan], "map_range holds values that are not finite"),
        ("map_range", [0.1], r"map_range is \(1,\) in the file"),
    ],
)
def test_calibrations_that_make_no_sense(tmp_path, lightning_model, name, value, message):
    path = tmp_path / "a.safetensors"
    good = read_adapters(save_adapters(lightning_model, path))
    write_adapters(replace(good, calibration=good.calibration | {name: torch.tensor(value)}), path)
    before = adapter_tensors(lightning_model.model)["det_proj.fc.weight"].clone()
    lightning_model.model.det_proj.fc.weight.data += 1
    with pytest.raises(ValueError, match=f"{path}.*{message}"):
        load_adapters(lightning_model, path)
    torch.testing.assert_close(lightning_model.model.det_proj.fc.weight.data, before + 1)
