"""Files of a training: checkpoints are whole or named, each run has its folder, and `latest` is the last that finished."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from anomalib import PrecisionType
from anomalib.engine.plugins import AnomalibCheckpointIO
from anomalib.utils.path import create_versioned_dir, resolve_versioned_path
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_dpclip.callbacks.checkpoint_io import AtomicCheckpointIO, write_checkpoints_whole
from anomalib_dpclip.callbacks.results_folder import UNFINISHED, ResultsFolder, prepare_folder, restore_latest

pytestmark = pytest.mark.skipif("os.name == 'nt'", reason="there anomalib makes junctions")


def saved(path, epochs):
    for epoch in range(1, epochs + 1):
        AtomicCheckpointIO().save_checkpoint({"epoch": epoch, "weight": torch.full((50,), float(epoch))}, path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights" / "model.ckpt"


def test_the_last_one_is_kept_as_lightning_writes_it(path):
    saved(path, 3)
    assert [file.name for file in path.parent.iterdir()] == ["model.ckpt"]
    assert torch.equal(TorchCheckpointIO().load_checkpoint(path)["weight"], torch.full((50,), 3.0))
    assert AtomicCheckpointIO().load_checkpoint(str(path))["epoch"] == 3


def test_a_failed_write_changes_nothing(path, monkeypatch):
    saved(path, 2)

    def full_disk(checkpoint, target):
        target.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="no space left"):
        saved(path, 1)
    assert [file.name for file in path.parent.iterdir()] == ["model.ckpt"]
    assert torch.load(path)["epoch"] == 2


def flipped(content):
    content = bytearray(content)
    content[content.index(torch.full((50,), 2.0).numpy().tobytes())] ^= 1
    return bytes(content)


@pytest.mark.parametrize("damage", [lambda content: content[:-100], flipped, lambda content: b""])
def test_one_that_cannot_be_read_is_named(path, damage):
    saved(path, 2)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"model\.ckpt cannot be read safely"):
        AtomicCheckpointIO().load_checkpoint(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*model\.ckpt"):
        AtomicCheckpointIO().load_checkpoint(path)


def test_types_of_anomalib_and_of_the_model_are_allowed(path):
    content = {"of anomalib": PrecisionType.FLOAT32, "of the model": timedelta(days=1)}
    AtomicCheckpointIO().save_checkpoint(content, path)
    assert AtomicCheckpointIO([timedelta]).load_checkpoint(path) == content
    with pytest.raises(ValueError, match="more than tensors and plain data"):
        AtomicCheckpointIO().load_checkpoint(path)
    assert AtomicCheckpointIO().load_checkpoint(path, weights_only=False) == content


def test_only_anomalib_s_own_way_is_replaced():
    strategy, user = (SimpleNamespace(checkpoint_io=io) for io in (AnomalibCheckpointIO([int]), TorchCheckpointIO()))
    write_checkpoints_whole(strategy)
    first, own = strategy.checkpoint_io, user.checkpoint_io
    assert isinstance(first, AtomicCheckpointIO)
    assert first.extra_safe_globals == [int]
    for each in (strategy, user):
        write_checkpoints_whole(each)
    assert (strategy.checkpoint_io, user.checkpoint_io) == (first, own)


def test_the_state_of_a_training_is_not_replaced_by_less(path):
    trained = {"optimizer_states": [{"step": 3}], "epoch": 1}
    AtomicCheckpointIO().save_checkpoint(trained, path)
    with pytest.raises(FileExistsError, match=r"model\.ckpt holds the state of a training, which would be lost"):
        AtomicCheckpointIO().save_checkpoint({"optimizer_states": [], "epoch": 0}, path)
    AtomicCheckpointIO().save_checkpoint(trained | {"epoch": 2}, path)
    assert torch.load(path)["epoch"] == 2


class FakeTrainer(SimpleNamespace):
    @property
    def default_root_dir(self):
        return str(self._default_root_dir)


def trainer(folder, command=TrainerFn.TESTING, global_step=0):
    checkpoints = SimpleNamespace(dirpath=str(folder / "weights" / "lightning"))
    return FakeTrainer(
        _default_root_dir=folder,
        is_global_zero=True,
        global_step=global_step,
        state=SimpleNamespace(fn=command),
        checkpoint_callbacks=[checkpoints, SimpleNamespace(dirpath="/elsewhere"), SimpleNamespace(dirpath=None)],
    )


def fit(parent, finishes=True, learns=True):
    running = trainer(create_versioned_dir(parent), TrainerFn.FITTING)
    folder = running._default_root_dir
    prepare_folder(running)
    if learns:
        (folder / "weights" / "lightning").mkdir(parents=True)
        torch.save({"optimizer_states": [{"step": 1}]}, folder / "weights" / "lightning" / "model.ckpt")
    if finishes:
        ResultsFolder().teardown(running, None, "fit")
    return folder


def test_a_test_and_then_a_training(tmp_path):
    prepare_folder(trainer(tmp_path / "calibrated"))
    assert not any(tmp_path.iterdir()), "one of another name is left alone"
    (tmp_path / "latest").mkdir()  # by an earlier test of anomalib's
    prepare_folder(trainer(tmp_path / "latest"))
    (tmp_path / "latest" / "decisions.csv").write_text("of the test")
    assert (tmp_path / "latest").resolve() == tmp_path / "v0"
    # anomalib's own function, which raised IsADirectoryError on a real folder.
    assert fit(tmp_path) == tmp_path / "v1"
    assert (tmp_path / "latest").resolve() == tmp_path / "v1"
    assert (tmp_path / "v0" / "decisions.csv").read_text() == "of the test"


def test_latest_is_the_last_that_finished(tmp_path):
    fit(tmp_path, finishes=False)
    assert not (tmp_path / "latest").exists()
    fit(tmp_path)
    assert (tmp_path / "latest").resolve() == tmp_path / "v1"
    fit(tmp_path, finishes=False)
    fit(tmp_path, finishes=False, learns=False)
    assert (tmp_path / "latest").resolve() == tmp_path / "v1"
    assert [path.name for path in sorted(tmp_path.glob("v*/unfinished"))] == [UNFINISHED] * 3
    fit(tmp_path, learns=False)  # as --trainer.fast_dev_run does
    assert not (tmp_path / "v4").exists()
    assert (tmp_path / "latest").resolve() == tmp_path / "v1"


def test_runs_that_do_not_train_have_a_folder_of_their_own(tmp_path):
    folder = fit(tmp_path)
    running = trainer(resolve_versioned_path(tmp_path / "latest"))
    for _ in range(2):  # anomalib validates and then tests
        prepare_folder(running)
        assert running.default_root_dir == str(folder / "evaluation")
    dirpaths = [callback.dirpath for callback in running.checkpoint_callbacks]
    assert dirpaths == [str(folder / "evaluation" / "weights" / "lightning"), "/elsewhere", None]
    assert (tmp_path / "latest").resolve() == folder


def test_the_next_run_undoes_what_a_training_left_that_failed_before_it_began(tmp_path):
    """As with a wrong argument of the trainer in Python, which no hook is told of."""
    folder = fit(tmp_path)
    create_versioned_dir(tmp_path)
    running = trainer(resolve_versioned_path(tmp_path / "latest"))
    prepare_folder(running)
    assert running.default_root_dir == str(folder / "evaluation")
    assert running.checkpoint_callbacks[0].dirpath == str(folder / "evaluation" / "weights" / "lightning")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["latest", "v0"]
    assert (tmp_path / "latest").resolve() == folder


def test_a_training_of_given_adapters_has_a_folder_of_its_own(tmp_path):
    """With `weights` anomalib's ``train`` validates in the folder that it has just made, and then tests."""
    fit(tmp_path)
    for number in (1, 2):
        running = trainer(create_versioned_dir(tmp_path), TrainerFn.VALIDATING)
        prepare_folder(running)
        assert (tmp_path / f"v{number}" / UNFINISHED).exists()
        (tmp_path / f"v{number}" / "model.ckpt").touch()
        ResultsFolder().teardown(running, None, "validate")
        running.state.fn = TrainerFn.TESTING
        prepare_folder(running)
        assert running.default_root_dir == str((tmp_path / "latest").resolve()) == str(tmp_path / f"v{number}")


def test_calibrations_are_written_where_earlier_ones_are(tmp_path):
    (tmp_path / "v0" / "weights" / "lightning").mkdir(parents=True)
    torch.save({"optimizer_states": []}, tmp_path / "v0" / "weights" / "lightning" / "model.ckpt")
    running = trainer(tmp_path / "v0")
    prepare_folder(running)
    assert running.default_root_dir == str(tmp_path / "v0")


def test_a_training_that_failed_before_it_began_leaves_latest_where_it_was(tmp_path):
    """As with a wrong flag of the trainer: anomalib has made the folder and the link before."""
    weave, photos = tmp_path / "Surfaces" / "weave", tmp_path / "photos"
    for root in (weave, photos):
        finished = create_versioned_dir(root)
        (finished / "images").mkdir()
        create_versioned_dir(root)
        restore_latest(tmp_path)
        assert [path.name for path in sorted(root.iterdir())] == ["latest", "v0"]
        assert (root / "latest").resolve() == finished
        restore_latest(tmp_path)
    create_versioned_dir(tmp_path / "first")
    restore_latest(tmp_path)
    assert list((tmp_path / "first").iterdir()) == []
    restore_latest(tmp_path / "gone")
