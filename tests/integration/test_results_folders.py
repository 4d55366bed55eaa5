"""What a training has made is changed by training alone, and `latest` is what the last run that finished has made."""

import hashlib
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_dpclip import DPCLIP
from anomalib_dpclip.callbacks.resuming import Resuming


@pytest.fixture
def trained(make_model, make_engine, target, tmp_path):
    """Folder of a training."""
    make_engine(max_epochs=1, limit_val_batches=1).fit(model=make_model(), datamodule=target)
    (checkpoint,) = (tmp_path / "results").rglob("model.ckpt")
    return checkpoint.parents[2]


def contents(folder):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def loaded(weights):
    return DPCLIP(backbone="mini", weights=weights, class_name="weave", visualizer=False)


def test_a_test_leaves_a_training_as_it_was(trained, make_engine, target, caplog, make_model):
    folder, before = trained, contents(trained)
    model = loaded(folder / "weights" / "lightning" / "model.ckpt")
    make_engine(limit_val_batches=1, limit_test_batches=1).test(model=model, datamodule=target)
    after = contents(folder)
    assert {path: after[path] for path in before} == before
    calibrated = folder / "evaluation" / "weights" / "lightning" / "model.ckpt"
    assert {path.relative_to(folder).parts[0] for path in after.keys() - before.keys()} == {"evaluation"}
    assert (folder / "evaluation" / "decisions.csv").is_file()
    assert not torch.load(calibrated, weights_only=False)["optimizer_states"]
    # What was calibrated is no training to go on with, and that is said.
    make_engine(max_epochs=1, limit_val_batches=0).fit(model=make_model(), datamodule=target, ckpt_path=calibrated)
    assert f"{calibrated} holds no state of a training: a new one starts from its adapters" in caplog.text


def test_the_test_after_a_training_that_stops_early_belongs_to_it(make_model, make_engine, target, tmp_path):
    model, few = make_model(), {"limit_val_batches": 1, "limit_test_batches": 1}
    make_engine(max_epochs=5, max_steps=1, **few).train(model=model, datamodule=target)
    assert (tmp_path / "results/DPCLIP/Surfaces/weave/latest/decisions.csv").is_file()
    assert not (tmp_path / "results/DPCLIP/Surfaces/weave/latest/evaluation").exists()
    assert model.provenance.epochs == model.provenance.max_epochs


def test_an_interruption_before_there_is_a_checkpoint_is_said(capsys):
    state = SimpleNamespace(fn=TrainerFn.FITTING)
    trainer = SimpleNamespace(state=state, checkpoint_callback=None, current_epoch=0, max_epochs=3)
    Resuming().on_exception(trainer, None, KeyboardInterrupt())
    assert capsys.readouterr().out == "Interrupted in epoch 1 of 3, before there was a checkpoint.\n"


def test_latest_is_the_last_finished_training(trained, make_model, make_engine, target, monkeypatch, capsys, tmp_path):
    latest, model = trained.with_name("latest"), make_model()
    step = model.training_step

    def interrupted(*args):
        if model.current_epoch == 1:
            raise KeyboardInterrupt
        return step(*args)

    monkeypatch.setattr(model, "training_step", interrupted)
    monkeypatch.setattr("sys.argv", ["anomalib", "train", "--ckpt_path", "old.ckpt", "--data.root", "my photos"])
    with pytest.raises(SystemExit):
        make_engine(max_epochs=3, limit_val_batches=1).train(model=model, datamodule=target)
    assert latest.resolve() == trained
    (kept,) = (path for path in trained.parent.glob("v*/weights/lightning/model.ckpt") if trained not in path.parents)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"anomalib fit --data.root 'my photos' --ckpt_path {kept}"
    half = loaded(kept)
    assert (half.provenance.epochs, half.provenance.max_epochs) == (1, 3)
    make_engine(default_root_dir=tmp_path / "elsewhere", limit_val_batches=1, limit_test_batches=1).test(
        model=half, datamodule=target
    )
    assert "These adapters are of an unfinished training: 1 of 3 epochs." in capsys.readouterr().out
    make_engine(max_epochs=2, limit_val_batches=1).fit(model=make_model(), datamodule=target, ckpt_path=kept)
    assert latest.resolve() not in {trained, kept.parents[2]}
