from types import SimpleNamespace

import pytest
import torch
from anomalib.data import ImageBatch
from tests.tiny_clip import tiny_model

from anomalib_dpclip import Photos
from anomalib_dpclip.data.items import NamedImageBatch
from anomalib_dpclip.model import target as target_module
from anomalib_dpclip.model.target import Target


def anchors_for(name):
    return torch.full((8, 2), float(sum(map(ord, name))))


@pytest.fixture
def make_target(monkeypatch):
    """Targets, of data modules that are known by their classes."""
    monkeypatch.setattr(target_module, "classes_of", lambda datamodule: datamodule.classes)
    return lambda **arguments: Target(tiny_model(), anchors_for, **arguments)


@pytest.mark.parametrize(
    ("given", "data", "from_file", "expected"),
    [
        ("metal_nut", ["bolt"], "screw", "metal nut"),
        (None, ["bolt"], "screw", "bolt"),
        (None, [], "screw", "screw"),
        (None, ["bolt", "nut"], "screw", "screw"),
        (None, [], None, "object"),
    ],
)
def test_the_user_s_class_comes_before_the_data_s_and_that_before_the_file_s(make_target, given, data, from_file, expected):
    target = make_target(class_name=given, default_class=from_file)
    target.model.anchors.zero_()
    target.resolve_class(SimpleNamespace(classes=set(data)))
    assert target.anchor_class == expected
    assert torch.equal(target.model.anchors, anchors_for(expected))


def test_without_any_name_what_a_checkpoint_brought_stays(make_target, caplog):
    target = make_target()
    before = target.model.anchors.clone()
    target.resolve_class(SimpleNamespace(classes=set()))
    assert torch.equal(target.model.anchors, before)
    target.model.anchors.zero_()
    target.resolve_class(None, is_run=False)
    assert caplog.text == "", "the data may name it yet"
    target.resolve_class(None)
    assert "no class name is known: prompts say 'object'" in caplog.text


def test_each_image_follows_its_own_class_unless_the_user_has_named_one(make_target):
    images, device = torch.rand(2, 3, 24, 24), torch.device("cpu")
    named, unnamed = NamedImageBatch(image=images, class_name=["brick", "weave"]), ImageBatch(image=images)
    free, fixed = make_target(), make_target(class_name="nut")
    fixed.set_class("nut")
    both, nut = torch.stack([anchors_for("brick"), anchors_for("weave")]), anchors_for("nut")
    for target, batch, training, expected in (
        (free, named, False, both),
        (fixed, named, True, both),
        (fixed, named, False, nut),
        (fixed, unnamed, True, nut),
    ):
        assert torch.equal(target.anchors_of(batch, device, follow_images=training), expected)


def test_thresholds_hold_in_the_domain_that_they_were_set_in(make_target, caplog, tmp_path):
    brain = SimpleNamespace(name="BMAD")
    assert make_target().resolve_domain(brain, is_calibrated=False) == "medical"
    assert make_target().resolve_domain(brain, is_calibrated=True) == "industrial"
    assert "the thresholds in force were set on industrial images, and BMAD is medical: calibrate with" in caplog.text
    assert make_target(domain="medical").resolve_domain(None, is_calibrated=True) == "medical"
    (tmp_path / "BMAD").mkdir()  # a folder's name decides nothing
    photos = Photos(tmp_path / "BMAD", num_workers=0)
    assert make_target().resolve_domain(photos, is_calibrated=False) == "industrial"
