"""The mini computes in one thread, whoever has to wait long is told so, and a loss that is not finite ends the training."""

import math
from types import SimpleNamespace

import pytest
import torch

from anomalib_dpclip.callbacks import duration
from anomalib_dpclip.callbacks.duration import COUNTED, WARM_UP, ChooseThreads, ExpectedTime
from anomalib_dpclip.callbacks.failures import RequireFiniteLoss


@pytest.fixture
def _two_threads(monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    yield
    torch.set_num_threads(before)


def run(backbone="mini", device="cpu"):
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)))
    return trainer, SimpleNamespace(hparams={"backbone": backbone}), "fit"


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize(
    ("arguments", "threads"), [({}, 1), ({"backbone": "ViT-L-14-336"}, 2), ({"device": "cuda"}, 2), ({"wish": "2"}, 2)]
)
def test_the_mini_has_one_thread_while_it_runs(monkeypatch, arguments, threads):
    if wish := arguments.get("wish"):
        monkeypatch.setenv("OMP_NUM_THREADS", wish)
    choose = ChooseThreads()
    for end in (choose.teardown, choose.on_exception):
        choose.setup(*run(**{name: value for name, value in arguments.items() if name != "wish"}))
        assert torch.get_num_threads() == threads
        end(None, None, None)
        assert torch.get_num_threads() == 2


def said(capsys, monkeypatch, trainer, hook, seconds, steps=WARM_UP + COUNTED + 3):
    clock = iter(index * seconds * COUNTED for index in range(9))
    monkeypatch.setattr(duration.time, "monotonic", lambda: next(clock))
    watch = ExpectedTime()
    watch.setup(None, None, "")
    for index in range(steps):
        getattr(watch, hook)(trainer, None, None, None, index)
    return capsys.readouterr().out


def fitting(**values):
    defaults = {"num_training_batches": 50, "max_epochs": 20, "current_epoch": 0, "max_steps": -1, "global_step": 7}
    return SimpleNamespace(accumulate_grad_batches=1, **defaults | values)


@pytest.mark.parametrize(
    ("trainer", "seconds", "expected"),
    [
        (fitting(), 1.5, "This will take about 25 minutes: 1000 steps of 1.5 s.\n"),
        (fitting(current_epoch=10), 24, "This will take about 3.3 hours: 500 steps of 24 s.\n"),
        (fitting(max_steps=107), 6, "This will take about 10 minutes: 100 steps of 6 s.\n"),
        (fitting(), 0.1, ""),
        (fitting(max_epochs=-1, num_training_batches=math.inf), 9, ""),
    ],
)
def test_how_long_a_training_takes(capsys, monkeypatch, trainer, seconds, expected):
    assert said(capsys, monkeypatch, trainer, "on_train_batch_end", seconds) == expected


@pytest.mark.parametrize("run", ["test", "predict"])
def test_other_runs(capsys, monkeypatch, run):
    trainer = SimpleNamespace(**{f"num_{run}_batches": [100, 50]})
    assert said(capsys, monkeypatch, trainer, f"on_{run}_batch_end", 2).startswith("This will take about 5 minutes: 150 steps")
    assert said(capsys, monkeypatch, trainer, f"on_{run}_batch_end", 2, steps=WARM_UP + COUNTED - 1) == ""


TRAINER = SimpleNamespace(log_every_n_steps=3)


def step(watch, index, loss, device="cpu"):
    batch = SimpleNamespace(image_path=[f"{index}.png", f"{index}b.png"])
    module = SimpleNamespace(device=SimpleNamespace(type=device))
    watch.on_train_batch_end(TRAINER, module, {"loss": torch.tensor(loss)}, batch, index)


def test_on_an_accelerator_now_and_then_and_before_a_checkpoint():
    for look in (lambda watch: step(watch, 2, 1.0, "cuda"), lambda watch: watch.on_save_checkpoint(TRAINER, None, {})):
        watch = RequireFiniteLoss()
        step(watch, 0, torch.nan, "cuda")
        step(watch, 1, 1.0, "cuda")
        with pytest.raises(FloatingPointError, match="batch 0 is not finite"):
            look(watch)
        watch.on_train_epoch_end(TRAINER, None)  # it is said once
