"""The last two checkpoints are kept, whatever happens while one is written."""

import logging
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from anomalib import PrecisionType
from anomalib.engine.plugins import AnomalibCheckpointIO
from lightning.fabric.plugins.io import TorchCheckpointIO

from anomalib_dpclip.model.checkpoint_retention import RetainingCheckpointIO, previous_of, retain_checkpoints


def saved(path, epochs):
    """Save checkpoints of epochs 1, 2, ... to the same file."""
    for epoch in range(1, epochs + 1):
        RetainingCheckpointIO().save_checkpoint({"epoch": epoch, "weight": torch.full((50,), float(epoch))}, path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights" / "model.ckpt"


def test_the_last_two_are_kept(path):
    saved(path, 3)
    assert sorted(file.name for file in path.parent.iterdir()) == ["model-previous.ckpt", "model.ckpt"]
    assert torch.load(path)["epoch"] == 3
    assert torch.load(previous_of(path))["epoch"] == 2


def test_what_is_written_is_what_lightning_writes(path):
    saved(path, 1)
    assert torch.equal(TorchCheckpointIO().load_checkpoint(path)["weight"], torch.ones(50))
    assert RetainingCheckpointIO().load_checkpoint(str(path))["epoch"] == 1


def test_a_failed_write_changes_nothing(path, monkeypatch):
    saved(path, 2)

    def full_disk(checkpoint, target):
        target.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="no space left"):
        saved(path, 1)
    assert sorted(file.name for file in path.parent.iterdir()) == ["model-previous.ckpt", "model.ckpt"]
    assert torch.load(path)["epoch"] == 2


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((50,), 2.0).numpy().tobytes())] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def missing(path):
    """As after a process that was killed between the two renames."""
    path.unlink()


@pytest.mark.parametrize("damage", [cut, flip, empty, missing])
def test_one_that_cannot_be_read_is_passed_over_with_a_warning(path, damage, caplog):
    saved(path, 2)
    damage(path)
    with caplog.at_level(logging.WARNING):
        assert RetainingCheckpointIO().load_checkpoint(path)["epoch"] == 1
    assert f"{path} cannot be read safely" in caplog.text
    assert f"going on with {previous_of(path)}, the checkpoint before the one asked for" in caplog.text


def test_without_another_it_is_an_error(path):
    saved(path, 1)
    cut(path)
    with pytest.raises(ValueError, match=r"model\.ckpt cannot be read safely"):
        RetainingCheckpointIO().load_checkpoint(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*model\.ckpt"):
        RetainingCheckpointIO().load_checkpoint(path)


def test_two_that_cannot_be_read_are_an_error(path):
    saved(path, 2)
    cut(path)
    cut(previous_of(path))
    with pytest.raises(ValueError, match=r"model-previous\.ckpt cannot be read safely"):
        RetainingCheckpointIO().load_checkpoint(path)


def test_types_of_the_host_and_of_the_model_are_allowed(path):
    content = {"of anomalib": PrecisionType.FLOAT32, "of the model": timedelta(days=1)}
    RetainingCheckpointIO().save_checkpoint(content, path)
    assert RetainingCheckpointIO([timedelta]).load_checkpoint(path) == content
    with pytest.raises(ValueError, match="more than tensors and plain data"):
        RetainingCheckpointIO().load_checkpoint(path)
    assert RetainingCheckpointIO().load_checkpoint(path, weights_only=False) == content


def test_only_the_anomalib_s_own_way_is_replaced():
    strategy = SimpleNamespace(checkpoint_io=AnomalibCheckpointIO([int]))
    retain_checkpoints(strategy)
    assert isinstance(strategy.checkpoint_io, RetainingCheckpointIO)
    assert strategy.checkpoint_io.extra_safe_globals == [int]
    first = strategy.checkpoint_io
    retain_checkpoints(strategy)
    assert strategy.checkpoint_io is first
    user = SimpleNamespace(checkpoint_io=TorchCheckpointIO())
    own = user.checkpoint_io
    retain_checkpoints(user)
    assert user.checkpoint_io is own
