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


def test_on_an_accelerator_now_and_then_and_before_a_checkpoint():
    for look in (lambda watch: step(watch, 2, 1.0, "cuda"), lambda watch: watch.on_save_checkpoint(TRAINER, None, {})):
        watch = RequireFiniteLoss()
        step(watch, 0, torch.nan, "cuda")
        step(watch, 1, 1.0, "cuda")
        with pytest.raises(FloatingPointError, match="batch 0 is not finite"):
            look(watch)
        watch.on_train_epoch_end(TRAINER, None)  # it is said once
