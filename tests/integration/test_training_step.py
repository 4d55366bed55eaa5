"""What a training step costs beyond its arithmetic."""

import pytest
import torch
from lightning import Callback
from torch.profiler import ProfilerActivity, profile

WAITING = {
    "aten::_local_scalar_dense",  # .item(), if tensor:, float(tensor)
    "aten::nonzero",  # indexing with a mask
    "aten::masked_select",
    "aten::bincount",
    "aten::equal",
    "aten::_unique2",
}
"""Operators for which the CPU waits for an accelerator, since it needs a value to go on."""


class StepProfile(Callback):
    """Operators of a training step's forward and backward, hooks and logging included, of every batch."""

    def __init__(self):
        self.operators = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.profile = profile(activities=[ProfilerActivity.CPU])
        self.profile.start()

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.profile.stop()
        self.operators.append({event.key for event in self.profile.key_averages()})


class WaitInTheEnd(Callback):
    def on_after_backward(self, trainer, pl_module):
        if pl_module.current_epoch == 1:
            pl_module.prototypes.normal.sum().item()


def test_the_cpu_never_waits_in_a_step(make_model, make_engine, target):
    watch = StepProfile()
    engine = make_engine(callbacks=[WaitInTheEnd(), watch], log_every_n_steps=50, limit_val_batches=0)
    engine.fit(model=make_model(), datamodule=target)
    assert len(watch.operators) == 4
    for operators in watch.operators[:2]:
        assert {"aten::addmm", "aten::scaled_dot_product_attention"} & operators, "nothing was recorded"
        assert not operators & WAITING
    assert all(operators & WAITING for operators in watch.operators[2:]), "the profile would show a wait"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: only CUDA can refuse to wait")
def test_cuda_refuses_no_step(make_model, make_engine, target):
    class RefuseToWait(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            torch.cuda.set_sync_debug_mode("error")

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            torch.cuda.set_sync_debug_mode("default")

    engine = make_engine(callbacks=[RefuseToWait()], accelerator="gpu", log_every_n_steps=50, max_epochs=1)
    engine.fit(model=make_model(), datamodule=target)
