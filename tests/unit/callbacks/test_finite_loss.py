"""A loss that is not finite ends the training, with the names of its images, before anything is written."""

from types import SimpleNamespace

import pytest
import torch

from anomalib_dpclip.callbacks.failures import RequireFiniteLoss

TRAINER = SimpleNamespace(log_every_n_steps=3)


def step(watch, index, loss, device="cpu"):
    batch = SimpleNamespace(image_path=[f"{index}.png", f"{index}b.png"])
    module = SimpleNamespace(device=SimpleNamespace(type=device))
    watch.on_train_batch_end(TRAINER, module, {"loss": torch.tensor(loss)}, batch, index)


@pytest.mark.parametrize("loss", [torch.nan, torch.inf, -torch.inf])
def test_on_the_cpu_at_once(loss):
    watch = RequireFiniteLoss()
    step(watch, 0, 1.0)
    with pytest.raises(FloatingPointError, match=r"batch 1 is not finite; its images are 1\.png, 1b\.png\. Training stops"):
        step(watch, 1, loss)


def test_on_an_accelerator_now_and_then_and_before_a_checkpoint():
    for look in (lambda watch: step(watch, 2, 1.0, "cuda"), lambda watch: watch.on_save_checkpoint(TRAINER, None, {})):
        watch = RequireFiniteLoss()
        step(watch, 0, torch.nan, "cuda")
        step(watch, 1, 1.0, "cuda")
        with pytest.raises(FloatingPointError, match="batch 0 is not finite"):
            look(watch)
        watch.on_train_epoch_end(TRAINER, None)  # it is said once
