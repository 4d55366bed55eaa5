from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from anomalib import PrecisionType
from anomalib.engine.plugins import AnomalibCheckpointIO
from lightning.fabric.plugins.io import TorchCheckpointIO

from anomalib_dpclip.callbacks.checkpoint_io import AtomicCheckpointIO, write_checkpoints_whole


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
    strategy, user = (
        SimpleNamespace(checkpoint_io=AnomalibCheckpointIO([int])),
        SimpleNamespace(checkpoint_io=TorchCheckpointIO()),
    )
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
