"""A training that is killed and resumed ends, bit for bit, where one that nobody disturbed ends."""

import signal

import torch
from anomalib.engine import Engine
from tests.arguments import make_dpclip
from tests.integration.killed_training import train
from tests.preloaded import run

from anomalib_dpclip import Surfaces


def settings(folder, root, num_workers=2):
    """Eight images in three batches an epoch, the last one smaller; the learning rate halves in every epoch."""
    learning = {"batch_size": 3, "num_workers": num_workers, "milestones": [2, 5], "prototype_momentum": 0.9}
    auxiliary = {"auxiliary": "Surfaces/brick", "auxiliary_root": str(root), "shots": 8}
    quiet = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "logger"), False)
    limits = {"accelerator": "cpu", "devices": 1, "max_epochs": 2, "limit_val_batches": 1}
    return {
        "root": str(root),
        "threads": torch.get_num_threads(),
        "model": {"backbone": "mini", "visualizer": False, **auxiliary, **learning},
        "engine": {"default_root_dir": str(folder), **limits, **quiet},
    }


def trained(folder, root, num_workers=2, ckpt_path=None):
    """Train to the end and give the last checkpoint's contents."""
    given = settings(folder, root, num_workers)
    engine = Engine(**given["engine"])
    engine.fit(model=make_dpclip(**given["model"]), datamodule=Surfaces(root=root, category="weave"), ckpt_path=ckpt_path)
    return torch.load(engine.best_model_path, weights_only=False)


def assert_identical(found, expected, place):
    """Compare nested values, tensors bit by bit."""
    if isinstance(expected, torch.Tensor):
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True, msg=f"{place} differs")
    elif isinstance(expected, dict | list | tuple):
        assert len(found) == len(expected), place
        for name in expected if isinstance(expected, dict) else range(len(expected)):
            assert_identical(found[name], expected[name], f"{place}[{name!r}]")
    else:
        assert found == expected, place


def test_killed_and_resumed_equals_undisturbed(surfaces_root, tmp_path):
    undisturbed = trained(tmp_path / "undisturbed", surfaces_root, num_workers=0)
    assert run(train, settings(tmp_path / "killed", surfaces_root)) == -signal.SIGKILL
    (path,) = (tmp_path / "killed").rglob("model.ckpt")
    left = torch.load(path, weights_only=False)
    assert (left["epoch"], left["global_step"]) == (0, 3), "the first epoch's checkpoint is whole"

    resumed = trained(tmp_path / "resumed", surfaces_root, ckpt_path=path)
    assert (resumed["epoch"], resumed["global_step"]) == (1, 6)
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert_identical(resumed[part], undisturbed[part], part)
    assert not torch.equal(resumed["state_dict"]["prototypes.abnormal"], left["state_dict"]["prototypes.abnormal"])
    assert resumed["lr_schedulers"][0]["_last_lr"] == [5e-4 / 4]
