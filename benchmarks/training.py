"""Training step: ours against everything the published implementation does, in time, memory and loss."""

from typing import Any

import pandas as pd
import torch
from lightning import seed_everything
from tqdm import trange

from anomalib_dpclip.method.objective import training_objective
from anomalib_dpclip.model.arguments import Architecture, Training
from anomalib_dpclip.model.lightning_model import DPCLIP
from benchmarks import baseline
from benchmarks.command import run
from benchmarks.peak_memory import PeakMemory
from benchmarks.timing import alternating_seconds, device, in_new_process, medians


class TrainingStep:
    """One optimiser step on random images with half of them damaged.

    Args:
        backbone: As in `DPCLIP`; untrained, which costs the same.
        batch_size: Images a step.
        published: Whether to do everything the published implementation does.
        bf16: Whether to run under bf16 autocast.
        checkpointing: Whether layers are computed again in the backward pass instead of remembered.
        image_size: As in `DPCLIP`.
        tap_layers: As in `DPCLIP`.
        matmul_precision: As in `torch.set_float32_matmul_precision`; the default is torch's.
    """

    def __init__(
        self,
        backbone: str,
        batch_size: int = 3,
        published: bool = False,
        bf16: bool = False,
        checkpointing: bool = False,
        image_size: int | None = None,
        tap_layers: list[int] | None = None,
        matmul_precision: str = "highest",
    ) -> None:
        torch.set_float32_matmul_precision(matmul_precision)
        seed_everything(0, verbose=False)
        module = DPCLIP(
            backbone=backbone,
            pretrained="random",
            image_size=image_size,
            architecture=Architecture(tap_layers=tap_layers),
            training=Training(checkpointing=checkpointing),
            class_name="metal",
        )
        self.module = module.to(device()).train()
        if published:
            baseline.thaw(module.model)
        self.published, self.bf16 = published, bf16
        size = module.model.backbone.image_size
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(batch_size, 3, *size, generator=generator).to(device())
        self.mask = torch.zeros(batch_size, *size, dtype=torch.bool, device=device())
        self.mask[::2, size[0] // 4 : size[0] // 2, size[1] // 4 : size[1] // 2] = True
        self.label = self.mask.flatten(1).any(1).long()
        self.anchors = module.model.anchors.expand(batch_size, -1, -1)
        learned = [p for n, p in module.model.named_parameters() if n.startswith(module.model.adapter_prefixes)]
        self.optimizer = torch.optim.Adam(learned, lr=5e-4, betas=(0.5, 0.999))

    def __call__(self) -> torch.Tensor:
        """Run the step; its loss."""
        arguments = (self.module.model, self.module.prototypes, self.images, self.mask, self.label, self.anchors)
        with torch.autocast(device().type, torch.bfloat16, enabled=self.bf16):
            loss = baseline.loss(*arguments) if self.published else training_objective(*arguments).total
        self.module.model.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()


VARIANTS: dict[str, dict[str, Any]] = {
    "published, fp32": {"published": True},
    "ours, fp32": {},
    "ours, fp32, medium matmul precision": {"matmul_precision": "medium"},
    "ours, bf16-mixed": {"bf16": True},
    "ours, bf16-mixed, checkpointing": {"bf16": True, "checkpointing": True},
}


def training(backbone: str = "ViT-L-14-336", batch_size: int = 3, repeats: int = 3) -> pd.DataFrame:
    """Seconds, peak memory and loss of a training step, ours against the published implementation's work.

    Every measurement has a process of its own, in which nothing else takes memory; the variants take turns.

    Args:
        backbone: As in `DPCLIP`.
        batch_size: Images a step.
        repeats: Rounds.

    Returns:
        One row a variant.
    """
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for _ in trange(repeats, desc="rounds", leave=False):
        for name, flags in VARIANTS.items():
            arguments = {"backbone": backbone, "batch_size": batch_size, **flags}
            measured[name].append(in_new_process("benchmarks.training:measure_step", **arguments))
    metrics = pd.DataFrame({name: pd.DataFrame(rows).median() for name, rows in measured.items()}).T
    reference = metrics.iloc[0]
    return pd.DataFrame(
        {
            "variant": metrics.index,
            "backbone": backbone,
            "batch": batch_size,
            "seconds": metrics["seconds"].round(3),
            "times as fast": (reference["seconds"] / metrics["seconds"]).round(2),
            "peak MiB": metrics["mebibytes"].round().astype(int),
            "of its memory": (metrics["mebibytes"] / reference["mebibytes"]).round(2),
            "first loss": metrics["loss"].round(4),
        }
    )


def measure_step(**arguments: Any) -> dict[str, float]:
    """Median ``seconds`` of a training step after a first one, that one's ``loss``, and peak ``mebibytes``, model included.

    Args:
        arguments: Of `TrainingStep`.
    """
    step = TrainingStep(**arguments)
    peak = PeakMemory(torch.cuda.current_device() if torch.cuda.is_available() else None)
    losses: list[torch.Tensor] = []
    timed = 10 if torch.cuda.is_available() else 1  # milliseconds there, a minute here
    seconds = medians(alternating_seconds({"step": lambda: losses.append(step())}, timed))
    return {"seconds": seconds["step"], "loss": losses[0].item(), "mebibytes": peak.mebibytes()}


if __name__ == "__main__":
    run(training)
