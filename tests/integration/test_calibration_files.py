"""A calibration is of one domain and one model: what files carry of it, and what goes on when they are used."""

from pathlib import Path

import pytest
from tests.arguments import make_dpclip

from anomalib_dpclip import DPCLIP, save_adapters
from anomalib_dpclip.adapter_files.command import adapters as show_adapters


def loaded(learned_bricks, **arguments):
    return make_dpclip(backbone="mini", weights=str(learned_bricks), class_name="weave", visualizer=False, **arguments)


def test_a_second_calibration_replaces_the_first_alone(learned_bricks, make_engine, target, tmp_path, capsys):
    kept, checkpoints = [], set()
    for rate in (None, 0.5):
        engine, model = make_engine(), loaded(learned_bricks, false_alarm_rate=rate)
        engine.validate(model=model, datamodule=target)
        kept.append(model.post_processor.calibration.thresholds)
        checkpoints.add(engine.best_model_path)
    assert kept[0] != kept[1]
    (checkpoint,) = checkpoints
    assert [path.name for path in (tmp_path / "results").rglob("*.ckpt")] == ["model.ckpt"]
    reloaded = DPCLIP.load_from_checkpoint(checkpoint)
    in_force, carried = reloaded.post_processor.calibration, reloaded.post_processor.auxiliary_calibration
    assert in_force.thresholds[:2] == pytest.approx(kept[1][:2])
    basis, learned = in_force.threshold_basis, carried.threshold_basis
    assert basis.endswith("with at most 50 %; from 8 normal images of Surfaces/weave")
    assert learned.startswith("the best F1 score of 4 normal and 4 anomalous images of the auxiliary set")
    said = capsys.readouterr().out
    assert f"Calibrated: {basis}." in said
    assert f"Thresholds: image score {kept[1].image:.4f}, map {kept[1].pixel:.4f}" in said
    assert f"Kept in {checkpoint}" in said
    show_adapters(Path(checkpoint))
    said = capsys.readouterr().out
    assert f"calibration      {learned}" in said
    assert f"thresholds       {basis}" in said
    again = save_adapters(reloaded, tmp_path / "again.safetensors")
    assert loaded(again).post_processor.calibration.threshold_basis == learned, "those of the target stay behind"


def test_a_checkpoint_without_adapters(make_engine, target):
    engine = make_engine()
    engine.validate(model=loaded("clip"), datamodule=target)
    checkpoint = engine.best_model_path
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
