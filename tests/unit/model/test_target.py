"""Who decides class and domain, and when."""

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
    """Anchors that are different for each name."""
    return torch.full((8, 2), float(sum(map(ord, name))))


@pytest.fixture
def make_target():
    return lambda **arguments: Target(tiny_model(), anchors_for, **arguments)


@pytest.fixture
def classes(monkeypatch):
    """Data modules that are known by their classes."""
    monkeypatch.setattr(target_module, "classes_of", lambda datamodule: datamodule.classes)
    return lambda *names: SimpleNamespace(classes=set(names))


def test_the_user_s_class_comes_before_the_data_s_and_that_before_the_file_s(make_target, classes):
    for given, data, from_file, expected in (
        ("metal_nut", ["bolt"], "screw", "metal nut"),
        (None, ["bolt"], "screw", "bolt"),
        (None, [], "screw", "screw"),
        (None, ["bolt", "nut"], "screw", "screw"),
        (None, [], None, "object"),
    ):
        target = make_target(class_name=given, default_class=from_file)
        target.model.anchors.zero_()
        target.resolve_class(classes(*data))
        assert target.anchor_class == expected
        assert torch.equal(target.model.anchors, anchors_for(expected))


def test_without_any_name_what_a_checkpoint_brought_stays(make_target, classes, caplog):
    target = make_target()
    before = target.model.anchors.clone()
    target.resolve_class(classes())
    assert torch.equal(target.model.anchors, before)
    target.model.anchors.zero_()
    target.resolve_class(None, is_run=False)
    assert caplog.text == "", "the data may name it yet"
    target.resolve_class(None)
    assert "no class name is known: prompts say 'object'" in caplog.text


def test_each_image_follows_its_own_class_unless_the_user_has_named_one(make_target):
    images, device = torch.rand(2, 3, 24, 24), torch.device("cpu")
    named = NamedImageBatch(image=images, class_name=["brick", "weave"])
    free, fixed = make_target(), make_target(class_name="nut")
    fixed.set_class("nut")
    both = torch.stack([anchors_for("brick"), anchors_for("weave")])
    assert torch.equal(free.anchors_of(named, device, follow_images=False), both)
    assert torch.equal(fixed.anchors_of(named, device, follow_images=True), both), "as in training"
    assert torch.equal(fixed.anchors_of(named, device, follow_images=False), anchors_for("nut"))
    assert torch.equal(fixed.anchors_of(ImageBatch(image=images), device, follow_images=True), anchors_for("nut"))


def test_thresholds_hold_in_the_domain_that_they_were_set_in(make_target, caplog):
    brain = SimpleNamespace(name="BMAD")
    assert make_target().resolve_domain(brain, is_calibrated=False) == "medical"
    assert make_target().resolve_domain(brain, is_calibrated=True) == "industrial"
    assert "the thresholds in force were set on industrial images, and BMAD is medical: calibrate with" in caplog.text
    assert make_target(domain="medical").resolve_domain(None, is_calibrated=True) == "medical"


def test_a_folder_s_name_decides_no_domain(make_target, tmp_path):
    (tmp_path / "BMAD").mkdir()
    photos = Photos(tmp_path / "BMAD", num_workers=0)
    assert make_target().resolve_domain(photos, is_calibrated=False) == "industrial"
