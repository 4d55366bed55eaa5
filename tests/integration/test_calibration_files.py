"""A calibration is of one domain and one model: what files carry of it, and what goes on when they are used."""

import logging
from pathlib import Path

import pytest
from tests.arguments import make_dpclip

from anomalib_dpclip import DPCLIP, load_adapters, save_adapters
from anomalib_dpclip.adapter_files.command import adapters as show_adapters


def loaded(learned_bricks, **arguments):
    return make_dpclip(backbone="mini", weights=str(learned_bricks), class_name="weave", visualizer=False, **arguments)


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
    basis = reloaded.post_processor.calibration.threshold_basis
    assert "exceeds the image threshold with a probability of at most 50 %" in basis
    assert basis.endswith("from 8 normal images of Surfaces/weave")
    assert f"Calibrated: {basis}." in said
    assert f"Thresholds: image score {kept.image:.4f}, map {kept.pixel:.4f}" in said
    assert f"Kept in {second}" in said
    learned = reloaded.post_processor.auxiliary_calibration.threshold_basis
    assert learned.startswith("the best F1 score of 4 normal and 4 anomalous images of the auxiliary set")
    show_adapters(Path(second))
    said = capsys.readouterr().out
    assert f"calibration      {learned}" in said
    assert f"thresholds       {basis}" in said
    show_adapters(save_adapters(reloaded, tmp_path / "again.safetensors"))
    said = capsys.readouterr().out
    assert f"calibration      {learned}" in said
    assert "thresholds " not in said  # those of the target stay behind
    assert loaded(tmp_path / "again.safetensors").post_processor.calibration.threshold_basis == learned


def test_a_checkpoint_without_adapters(make_engine, target):
    engine = make_engine()
    engine.validate(model=loaded("clip"), datamodule=target)
    checkpoint = checkpoint_of(engine)
    (metrics,) = make_engine().test(model=loaded("clip"), datamodule=target, ckpt_path=checkpoint)
    assert metrics["image_AUROC"] > 0.9
    (again,) = make_engine().test(model=DPCLIP.load_from_checkpoint(checkpoint), datamodule=target)
    assert again["image_AUROC"] == metrics["image_AUROC"]

    for arguments in ({}, {"adapter_layers": [], "tap_layers": [6]}):
        model = make_dpclip(backbone="mini", visualizer=False, **arguments)
        with pytest.raises(ValueError, match=r"of CLIP without adapters: say --model\.weights clip beside --ckpt_path"):
            make_engine().predict(model=model, datamodule=target, ckpt_path=checkpoint)
    with pytest.raises(ValueError, match=r"model\.ckpt is of CLIP without adapters, and holds none"):
        loaded(checkpoint)


def test_an_adapter_file_is_no_checkpoint(learned_bricks, make_engine, target):
    with pytest.raises(
        ValueError, match=r"adapters\.safetensors is an adapter file, no checkpoint: give it as --model.weights"
    ):
        make_engine().test(model=loaded(learned_bricks), datamodule=target, ckpt_path=learned_bricks)


def test_adapters_loaded_in_python_are_in_force(learned_bricks, make_model, make_engine, target, caplog):
    model = make_model()
    load_adapters(model, learned_bricks)
    assert model.post_processor.calibration.is_set
    assert model.learning_type.value == "zero_shot"
    with caplog.at_level(logging.WARNING):
        make_engine(limit_val_batches=0).test(model=model, datamodule=target)
    assert "nothing has been calibrated" not in caplog.text
