"""What a training has made is changed by training alone, and `latest` is what the last run that finished has made."""

import hashlib

import pytest
import torch

from anomalib_dpclip import DPCLIP, save_adapters


@pytest.fixture
def trained(make_model, make_engine, target, tmp_path):
    """Folder of a training, and adapters saved of it."""
    model = make_model()
    make_engine(max_epochs=1, limit_val_batches=1).fit(model=model, datamodule=target)
    (checkpoint,) = (tmp_path / "results").rglob("model.ckpt")
    return checkpoint.parents[2], save_adapters(model, tmp_path / "adapters.safetensors")


def contents(folder):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def loaded(weights):
    return DPCLIP(backbone="mini", weights=weights, class_name="weave", visualizer=False)


@pytest.mark.parametrize("kind", ["adapters", "checkpoint"])
def test_a_test_leaves_a_training_as_it_was(trained, make_engine, target, caplog, kind, make_model):
    folder, adapters = trained
    checkpoint = folder / "weights" / "lightning" / "model.ckpt"
    before = contents(folder)
    make_engine(limit_val_batches=1, limit_test_batches=1).test(
        model=loaded(adapters if kind == "adapters" else checkpoint), datamodule=target
    )
    after = contents(folder)
    assert {path: after[path] for path in before} == before
    calibrated = folder / "evaluation" / "weights" / "lightning" / "model.ckpt"
    assert {path.relative_to(folder).parts[0] for path in after.keys() - before.keys()} == {"evaluation"}
    assert (folder / "evaluation" / "decisions.csv").is_file()
    assert not torch.load(calibrated, weights_only=False)["optimizer_states"]
    # What was calibrated is no training to go on with, and that is said.
    caplog.clear()
    make_engine(max_epochs=1, limit_val_batches=0).fit(model=make_model(), datamodule=target, ckpt_path=calibrated)
    assert f"{calibrated} holds no state of a training: a new one starts from its adapters" in caplog.text


def test_the_test_after_a_training_that_stops_early_belongs_to_it(make_model, make_engine, target, tmp_path):
    model, few = make_model(), {"limit_val_batches": 1, "limit_test_batches": 1}
    make_engine(max_epochs=5, max_steps=1, **few).train(model=model, datamodule=target)
    assert (tmp_path / "results/DPCLIP/Surfaces/weave/latest/decisions.csv").is_file()
    assert not (tmp_path / "results/DPCLIP/Surfaces/weave/latest/evaluation").exists()
    assert model.provenance.epochs == model.provenance.max_epochs


def test_latest_is_the_last_finished_training(trained, make_model, make_engine, target, monkeypatch, capsys, tmp_path):
    folder, _ = trained
    latest, checkpoints = folder.with_name("latest"), "v*/weights/lightning/model.ckpt"
    for epoch in (0, 1):
        model = make_model()
        step = model.training_step

        def interrupted(*args, model=model, step=step, epoch=epoch):
            if model.current_epoch == epoch:
                raise KeyboardInterrupt
            return step(*args)

        monkeypatch.setattr(model, "training_step", interrupted)
        monkeypatch.setattr("sys.argv", ["anomalib", "train", "--ckpt_path", "old.ckpt", "--data.root", "my photos"])
        with pytest.raises(SystemExit):
            make_engine(max_epochs=3, limit_val_batches=1).train(model=model, datamodule=target)
        assert latest.resolve() == folder
        last = capsys.readouterr().out.splitlines()[-1]
        kept = [path for path in folder.parent.glob(checkpoints) if folder not in path.parents]
        if epoch == 0:
            assert last == "Interrupted in epoch 1 of 3, before there was a checkpoint."
            assert not kept
    (kept,) = kept
    assert last == f"anomalib fit --data.root 'my photos' --ckpt_path {kept}"
    half = loaded(kept)
    assert (half.provenance.epochs, half.provenance.max_epochs) == (1, 3)
    make_engine(default_root_dir=tmp_path / "elsewhere", limit_val_batches=1, limit_test_batches=1).test(
        model=half, datamodule=target
    )
    assert "These adapters are of an unfinished training: 1 of 3 epochs." in capsys.readouterr().out
    make_engine(max_epochs=2, limit_val_batches=1).fit(model=make_model(), datamodule=target, ckpt_path=kept)
    assert latest.resolve() not in {folder, kept.parents[2]}
