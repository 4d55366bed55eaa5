"""However a training ends, what is tested and kept is what was trained, with thresholds of it."""

import pytest
import torch
from anomalib.data import Folder
from tests.arguments import make_dpclip
from torch.utils.data import DataLoader

from anomalib_dpclip import save_adapters
from anomalib_dpclip.adapter_files.read_and_write import read_adapters


def weights_of(model):
    return {
        name: value.clone() for name, value in model.model.state_dict().items() if name.startswith(("seg_proj", "det_proj"))
    }


def test_train_with_a_checkpoint_tests_what_it_trained(make_model, make_engine, target, tmp_path, caplog):
    first = make_engine(max_epochs=1)
    first.fit(model=make_model(), datamodule=target)
    start = first.best_model_path
    (old,) = make_engine(default_root_dir=tmp_path / "old").test(model=make_model(), datamodule=target, ckpt_path=start)
    engine = make_engine(max_epochs=3, default_root_dir=tmp_path / "on")
    (tested,) = engine.train(model=make_model(), datamodule=target, ckpt_path=start)
    assert "testing the model as it was trained, not" in caplog.text
    assert old["pixel_AUROC"] != tested["pixel_AUROC"]


@pytest.mark.parametrize("flags", [{"check_val_every_n_epoch": 5}, {"max_steps": 1, "max_epochs": 5}], ids=str)
def test_thresholds_of_adapters_that_no_validation_has_seen_are_their_own(make_model, make_engine, target, flags, caplog):
    model = make_model()
    make_engine(**flags).fit(model=model, datamodule=target)
    in_force, carried = model.post_processor.calibration, model.post_processor.auxiliary_calibration
    assert in_force.is_set
    assert torch.equal(in_force.map_knots, carried.map_knots)
    assert model.provenance.calibration_domain == "industrial"
    assert "nothing has been calibrated" not in caplog.text


def test_a_checkpoint_within_an_epoch_is_of_that_moment(make_model, make_engine, target):
    engine = make_engine(max_epochs=2, val_check_interval=1.0, check_val_every_n_epoch=1)
    model = make_model()
    engine.fit(model=model, datamodule=target)
    kept = read_adapters(engine.trainer.checkpoint_callback.best_model_path)
    assert kept.provenance.epochs == 2
    assert torch.equal(kept.calibration["map_knots"], model.post_processor.auxiliary_calibration.map_knots)


def test_bf16_weights_are_kept_and_read(make_model, make_engine, target, tmp_path):
    model = make_model()
    make_engine(precision="bf16-true", max_epochs=1).fit(model=model, datamodule=target)
    path = save_adapters(model, tmp_path / "adapters.safetensors")
    assert make_dpclip(backbone="mini", weights=str(path), visualizer=False).post_processor.calibration.is_set


def test_batches_of_one_s_own_are_learned_from(make_engine, surfaces_root, caplog):
    """Without a data module: no other set is fetched, and one class serves all images."""
    folder = Folder(
        "weave",
        root=surfaces_root / "weave" / "test",
        normal_dir="good",
        abnormal_dir="scratch",
        mask_dir=surfaces_root / "weave" / "ground_truth" / "scratch",
        num_workers=0,
    )
    folder.setup()
    batches = DataLoader(folder.test_data, batch_size=4, collate_fn=folder.test_data.collate_fn)
    model = make_dpclip(backbone="mini", auxiliary="VisA", class_name="weave", visualizer=False)
    before = weights_of(model)
    make_engine(max_epochs=1, limit_train_batches=2).fit(model=model, train_dataloaders=batches)
    assert any(not torch.equal(value, before[name]) for name, value in weights_of(model).items())
    assert model.provenance.learned_from == ["unnamed"]
