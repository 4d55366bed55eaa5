"""A calibration is of one domain and one model: what files carry of it, and what goes on when they are used."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.arguments import make_dpclip

from anomalib_dpclip import DPCLIP, Photos, load_adapters, save_adapters
from anomalib_dpclip.adapter_files.command import adapters as show_adapters
from anomalib_dpclip.post_processing.thresholds import Thresholds


def loaded(learned_bricks, **arguments):
    return make_dpclip(backbone="mini", weights=str(learned_bricks), class_name="weave", visualizer=False, **arguments)


@pytest.fixture
def photos(tmp_path, surfaces_root):
    """A folder that is called as a medical data set, and holds one photo."""
    folder = tmp_path / "brain"
    folder.mkdir()
    (folder / "0.png").write_bytes((surfaces_root / "weave/test/good/000.png").read_bytes())
    return folder


def checkpoint_of(engine):
    return engine.trainer.checkpoint_callback.best_model_path


def test_a_second_calibration_replaces_the_first(learned_bricks, make_engine, target, tmp_path, capsys):
    def thresholds(sensitive):
        engine = make_engine(default_root_dir=tmp_path / "calibrated")
        model = loaded(learned_bricks, false_alarm_rate=0.5 if sensitive else None)
        engine.validate(model=model, datamodule=target)
        return checkpoint_of(engine), model.post_processor.calibration.thresholds

    first, replaced = thresholds(sensitive=False)
    second, kept = thresholds(sensitive=True)
    assert first == second
    assert replaced != kept
    assert [path.name for path in (tmp_path / "calibrated").rglob("*.ckpt")] == ["model.ckpt"]
    reloaded = DPCLIP.load_from_checkpoint(second)
    assert reloaded.post_processor.calibration.thresholds[:2] == pytest.approx(kept[:2])
    said = capsys.readouterr().out
    threshold_basis = (
        "a new normal image of the same source exceeds the image threshold with a probability of at most 50 %, and the pixel "
        "threshold anywhere with at most 50 %; from 8 normal images of Surfaces/weave"
    )
    assert f"Calibrated: {threshold_basis}." in said
    assert f"Thresholds: image score {kept.image:.4f}, map {kept.pixel:.4f}" in said
    assert f"Kept in {second}" in said
    assert reloaded.post_processor.calibration.threshold_basis == threshold_basis
    learned = "normal and 4 anomalous images of the auxiliary set, which the adapters learn from; no guarantee for new images"
    assert reloaded.post_processor.auxiliary_calibration.threshold_basis == f"the best F1 score of 4 {learned}"
    show_adapters(Path(second))
    said = capsys.readouterr().out
    assert f"calibration      the best F1 score of 4 {learned}" in said
    assert f"thresholds       {threshold_basis}" in said
    show_adapters(save_adapters(reloaded, tmp_path / "again.safetensors"))
    said = capsys.readouterr().out
    assert f"calibration      the best F1 score of 4 {learned}" in said
    assert "thresholds " not in said  # those of the target stay behind
    assert (
        loaded(tmp_path / "again.safetensors").post_processor.calibration.threshold_basis == f"the best F1 score of 4 {learned}"
    )


class TestDomain:
    def test_adapter_files_carry_that_of_their_thresholds(self, learned_bricks, tmp_path):
        model = loaded(learned_bricks)
        assert model.provenance.calibration_domain == "industrial"
        model.provenance = type(model.provenance)(**{**vars(model.provenance), "calibration_domain": "medical"})
        medical = loaded(save_adapters(model, tmp_path / "medical.safetensors"))
        assert medical.model.domain == medical.post_processor.domain == "medical"

    def test_thresholds_of_another_are_not_used(self, learned_bricks, caplog):
        model = loaded(learned_bricks, domain="medical")
        assert model.model.domain == "medical"
        assert not model.post_processor.calibration.is_set
        assert "has thresholds of industrial images, which do not hold with domain=medical" in caplog.text

    def test_a_checkpoint_s_stays(self, learned_bricks, make_engine, target, photos):
        engine = make_engine()
        engine.validate(model=loaded(learned_bricks, domain="medical"), datamodule=target)
        model = loaded(learned_bricks)
        make_engine().predict(model=model, datamodule=Photos(photos.parent, num_workers=0), ckpt_path=checkpoint_of(engine))
        assert model.model.domain == model.post_processor.domain == "medical"


class TestWithoutAdapters:
    @pytest.fixture
    def checkpoint(self, make_engine, target):
        engine = make_engine()
        engine.validate(model=loaded("clip"), datamodule=target)
        return checkpoint_of(engine)

    def test_it_judges_as_it_was_calibrated(self, checkpoint, make_engine, target):
        (metrics,) = make_engine().test(model=loaded("clip"), datamodule=target, ckpt_path=checkpoint)
        assert metrics["image_AUROC"] > 0.9
        rebuilt = DPCLIP.load_from_checkpoint(checkpoint)
        (again,) = make_engine().test(model=rebuilt, datamodule=target)
        assert again["image_AUROC"] == metrics["image_AUROC"]

    def test_a_model_with_adapters_refuses_it(self, checkpoint, make_engine, target):
        # The advice used to be other layers, with which defects became normal.
        message = "of CLIP without adapters: say --model.weights clip beside --ckpt_path"
        for arguments in ({}, {"adapter_layers": [], "tap_layers": [6]}):
            model = make_dpclip(backbone="mini", visualizer=False, **arguments)
            with pytest.raises(ValueError, match=message):
                make_engine().predict(model=model, datamodule=target, ckpt_path=checkpoint)

    def test_there_are_no_adapters_to_take_from_it(self, checkpoint):
        with pytest.raises(ValueError, match=r"model\.ckpt is of CLIP without adapters, and holds none"):
            loaded(checkpoint)


def test_an_adapter_file_is_no_checkpoint(learned_bricks, make_engine, target):
    with pytest.raises(
        ValueError, match=r"adapters\.safetensors is an adapter file, no checkpoint: give it as --model.weights"
    ):
        make_engine().test(model=loaded(learned_bricks), datamodule=target, ckpt_path=learned_bricks)


def test_half_precision_calibrates_on_identical_images(learned_bricks, make_engine, surfaces_root, tmp_path):
    """Their control points lie closer together than half precision can tell apart."""
    from anomalib.data import Folder

    (tmp_path / "same").mkdir()
    for index in range(3):
        content = (surfaces_root / "weave/test/good/000.png").read_bytes()
        (tmp_path / "same" / f"{index}.png").write_bytes(content)
    folder = Folder(
        "same", root=tmp_path, normal_dir="same", normal_test_dir="same", val_split_mode="same_as_test", num_workers=0
    )
    model = loaded(learned_bricks)
    make_engine(precision="16-true").validate(model=model, datamodule=folder)
    calibration = model.post_processor.calibration
    assert calibration.map_knots.dtype == torch.float32
    assert (calibration.map_knots.diff() > 0).all()
    assert isinstance(calibration.thresholds, Thresholds)


def test_adapters_loaded_in_python_are_in_force(learned_bricks, make_model, make_engine, target, caplog):
    model = make_model()
    load_adapters(model, learned_bricks)
    assert model.post_processor.calibration.is_set
    assert model.learning_type.value == "zero_shot"
    with caplog.at_level(logging.WARNING):
        make_engine(limit_val_batches=0).test(model=model, datamodule=target)
    assert "nothing has been calibrated" not in caplog.text


class TestDetection:
    @pytest.fixture
    def checkpoint(self, make_engine, target, tmp_path):
        """Calibrated with the class token in the image score."""
        model = make_dpclip(backbone="mini", class_name="weave", detection="class_token")
        model.provenance = replace(model.provenance, learned_from=["Surfaces/brick"])
        file = save_adapters(model, tmp_path / "class_token.safetensors")
        engine = make_engine()
        engine.validate(model=make_dpclip(weights=file, class_name="weave", visualizer=False), datamodule=target)
        return checkpoint_of(engine)

    def test_a_checkpoint_s_is_followed(self, checkpoint, make_engine, photos, tmp_path):
        model = make_dpclip(backbone="mini", visualizer=False)
        assert model.model.detection == "projector"
        make_engine().predict(model=model, datamodule=Photos(photos, num_workers=0), ckpt_path=checkpoint)
        assert model.model.detection == "class_token"
        assert make_dpclip(weights=save_adapters(model, tmp_path / "again.safetensors")).model.detection == "class_token"
