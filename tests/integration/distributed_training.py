"""Train a few steps on given devices and write the adapters and prototypes; run by test_distributed, once a process."""

import json
import sys
from pathlib import Path

import torch
from anomalib.engine import Engine
from safetensors.torch import save_file

from anomalib_dpclip import DPCLIP, Surfaces
from anomalib_dpclip.checkpoint import adapter_tensors

if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    model = DPCLIP(
        backbone="mini",
        auxiliary=settings["auxiliary"],
        auxiliary_root=settings["auxiliary_root"],
        shots=settings["shots"],
        batch_size=settings["batch_size"],
        visualizer=False,
    )
    engine = Engine(
        accelerator="cpu",
        devices=settings["devices"],
        strategy=settings["strategy"],
        max_epochs=2,
        limit_val_batches=0,
        logger=False,
        enable_progress_bar=False,
        default_root_dir=Path(settings["output"]).parent / f"results{settings['devices']}",
    )
    engine.fit(model=model, datamodule=Surfaces(root=settings["root"], category="weave"))
    if engine.trainer.global_rank == 0:
        save_file(adapter_tensors(model.model) | dict(model.prototypes.state_dict()), settings["output"])
