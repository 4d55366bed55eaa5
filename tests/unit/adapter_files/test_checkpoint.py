"""Adapters into and out of models, with thresholds and where they come from: they fit, or the error says what differs."""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tests.arguments import make_dpclip
from tests.data.golden.make_golden import GOLDEN
from tests.tiny_clip import tiny_clip, tiny_model

from anomalib_dpclip.adapter_files.adapter_file import AdapterFile, Provenance
from anomalib_dpclip.adapter_files.read_and_write import arguments_from_file, read_adapters, write_adapters
from anomalib_dpclip.adapter_files.save_and_load import adapter_tensors, architecture_of, load_adapters, save_adapters
from anomalib_dpclip.files.tensors import is_plain_tensor


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_another_model_gives_the_same_predictions(tmp_path, suffix):
    trained, fresh = tiny_model(seed=1), tiny_model(seed=2)
    fresh.anchors.copy_(trained.anchors)
    load_adapters(fresh, save_adapters(trained, tmp_path / f"adapters.{suffix}"))
    images = torch.randn(2, 3, 24, 24)
    with torch.no_grad():
        assert torch.equal(fresh(images).anomaly_map, trained(images).anomaly_map)
        assert torch.equal(fresh(images).pred_score, trained(images).pred_score)


def test_half_precision_files_are_taken(tmp_path):
    model = tiny_model()
    halves = {name: value.half() for name, value in adapter_tensors(model).items()}
    load_adapters(model, write_adapters(AdapterFile(halves, {}, Provenance()), tmp_path / "a.safetensors"))
    for name, value in adapter_tensors(model).items():
        assert value.dtype == torch.float32
        assert torch.equal(value, halves[name].float())


def changed(name, value):
    return lambda tensors: tensors | {name: value}


NAME, SHAPE = "det_proj.fc.weight", (8, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: {}, "tensors missing, such as 'det_proj.fc.weight'"),
        (lambda tensors: {n: v for n, v in tensors.items() if "det" not in n}, "3 tensors missing, such as 'det_proj"),
        (changed("seg_proj.9.fc.weight", torch.zeros(2)), "1 tensors too many, such as 'seg_proj.9.fc.weight'"),
        (changed(7, torch.zeros(1)), "1 tensors too many, such as 7"),
        (changed(NAME, torch.zeros(16, 8)), r"det_proj.fc.weight is \(16, 8\) in the file and \(8, 16\)"),
        (changed(NAME, torch.zeros(SHAPE, dtype=torch.int32)), "has type torch.int32 instead of torch.float32"),
        (changed(NAME, torch.full(SHAPE, torch.nan)), "not finite numbers"),
        (changed(NAME, torch.full(SHAPE, 1e300, dtype=torch.float64)), "not finite numbers"),
        (changed(NAME, torch.full(SHAPE, torch.nan, dtype=torch.float8_e5m2)), "not finite numbers"),
        (changed(NAME, torch.zeros(SHAPE).to_sparse()), "is not a plain dense tensor"),
        (changed(NAME, torch.zeros(SHAPE, device="meta")), "is not a plain dense tensor"),
        (changed(NAME, [0.0]), "det_proj.fc.weight is list in the file"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path, change, message):
    model, files = tiny_model(), [tmp_path / "a.pth"]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tensors = change(adapter_tensors(model))
    torch.save({"image_adapter": tensors}, files[0])
    if all(isinstance(name, str) and is_plain_tensor(value) for name, value in tensors.items()):  # else it has no room for them
        files.append(write_adapters(AdapterFile(tensors, {}, Provenance()), tmp_path / "a.safetensors"))
    for path in files:
        with pytest.raises(ValueError, match=f"(?s){re.escape(str(path))}.*{message}"):
            load_adapters(model, path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("other", [{"seed": 1}, {"quick_gelu": True}])
def test_adapters_of_another_backbone(tmp_path, other):
    path = save_adapters(tiny_model(), tmp_path / "a.safetensors")
    model = tiny_model(clip=tiny_clip(**other))
    with pytest.raises(ValueError, match=f"{path} holds adapters of another backbone.*Set --model.backbone"):
        load_adapters(model, path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"adapter_weight": 0.2}, "adapter_weight=0.1, the model has 0.2: set --model.architecture.adapter_weight 0.1"),
        ({"projector_activation": True}, "projector_activation=False, the model has True"),
        ({"grn_pooling": "batch"}, "grn_pooling=tokens, the model has batch"),
        ({"detection": "class_token"}, "detection=projector, the model has class_token"),
        ({"tap_layers": [4]}, r"tap_layers=\[1, 2, 3, 4\], the model has \[4\]"),
        ({"adapter_layers": [1]}, r"adapter_layers=\[0\], the model has \[1\]"),
    ],
)
def test_adapters_of_another_architecture(tmp_path, arguments, message):
    path = save_adapters(tiny_model(), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=f"{path} holds adapters trained with {message}"):
        load_adapters(tiny_model(**arguments), path)


class Holder:
    """What `DPCLIP` is to adapters, without Lightning."""

    def __init__(self, model, **arguments):
        self.model, self.configuration = model, SimpleNamespace(as_dict=lambda: arguments)
        self.pre_processor = self.post_processor = None
        self.provenance = Provenance(fingerprint=model.backbone_fingerprint, architecture=architecture_of(model))
        self.adopted = None

    def adopt_adapters(self, source):
        self.adopted = source


PLAIN = {
    "image_size": 112,
    "tiles": 2,
    "class_name": "metal nut",
    "domain": "medical",
    "prompts": {"templates": ["a close-up of a {}."]},
}
ELSEWHERE = {"min_area": None, "backbone": "mini", "pretrained": "/home/somebody/clip.pt", "detection": "projector"}
"""One has no value, and three are in the provenance by other names."""
ARGUMENTS = PLAIN | {"prompts": {"templates": ("a close-up of a {}.",)}} | ELSEWHERE


def test_what_predictions_depend_on_is_stored_of_untrained_models_too(tmp_path):
    path = save_adapters(Holder(tiny_model(), **ARGUMENTS), tmp_path / "a.safetensors")
    assert read_adapters(path).provenance.arguments == PLAIN
    holder = Holder(tiny_model(seed=2), **ARGUMENTS)
    assert arguments_from_file(path) == PLAIN | holder.provenance.architecture
    assert load_adapters(holder, path).arguments == PLAIN
    assert holder.adopted == str(path)
    assert read_adapters(save_adapters(holder, tmp_path / "b.safetensors")).provenance.arguments == PLAIN
    for own in ({"image_size": None, "tiles": 2}, {"class_name": "brick", "domain": "industrial"}, {}):
        # What follows the file, or is of the target, may differ.
        assert load_adapters(Holder(tiny_model(), **own), path).arguments == PLAIN


def test_other_arguments_are_refused_by_name_or_said(tmp_path, caplog):
    path = save_adapters(Holder(tiny_model(), **ARGUMENTS), tmp_path / "a.safetensors")
    other = Holder(tiny_model(seed=2), image_size=140)
    before = adapter_tensors(other.model)["det_proj.fc.weight"].clone()
    with pytest.raises(ValueError, match=f"{path} holds adapters of a model with image_size=112, the model has 140: give"):
        load_adapters(other, path)
    assert torch.equal(adapter_tensors(other.model)["det_proj.fc.weight"], before)
    load_adapters(other, path, overridden={"image_size"})
    assert not caplog.text  # without thresholds there is nothing to say
    assert not torch.equal(adapter_tensors(other.model)["det_proj.fc.weight"], before)


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
