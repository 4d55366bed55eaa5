"""Train a few steps on given devices, test, and write what came of it, for test_distributed.

A script too: Lightning starts the second process by it.
"""

import json
import sys
from pathlib import Path

import torch
from anomalib.engine import Engine
from safetensors.torch import save_file
from tests.arguments import make_dpclip

from anomalib_dpclip import Surfaces
from anomalib_dpclip.adapter_files.save_and_load import adapter_tensors


class FewSurfaces(Surfaces):
    """Ten of its images, half of them damaged."""

    def _setup(self, stage=None):
        super()._setup(stage)
        self.test_data.subsample(range(0, len(self.test_data), 16), inplace=True)


def train(settings: dict) -> None:
    torch.set_num_threads(1)
    given = {name: settings[name] for name in ("auxiliary", "auxiliary_root", "shots", "batch_size")}
    model = make_dpclip(backbone="mini", visualizer=False, **given)
    engine = Engine(
        accelerator="cpu",
        devices=settings["devices"],
        strategy=settings["strategy"],
        max_epochs=2,
        logger=False,
        enable_progress_bar=False,
        default_root_dir=Path(settings["output"]).parent / f"results{settings['devices']}",
    )
    target = FewSurfaces(root=settings["root"], category="weave", eval_batch_size=4, num_workers=0)
    engine.fit(model=model, datamodule=target)
    (metrics,) = engine.test(model=model, datamodule=target)
    thresholds = {name: getattr(model.post_processor, name) for name in ("image_threshold", "pixel_threshold")}
    model.lot = True
    (by_lot,) = engine.test(model=model, datamodule=target)
    if engine.trainer.global_rank == 0:
        learned = adapter_tensors(model.model) | dict(model.prototypes.state_dict())
        metrics |= {f"by lot/{name}": value for name, value in by_lot.items()}
        tested = {f"tested/{name}": torch.as_tensor(value) for name, value in {**metrics, **thresholds}.items()}
        save_file({name: value.clone() for name, value in (learned | tested).items()}, settings["output"])


if __name__ == "__main__":
    train(json.loads(sys.argv[1]))
