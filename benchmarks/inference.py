"""Inference: the whole model, maps and scores, against the bare frozen tower's own forward."""

from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from anomalib_dpclip.method.torch_model import DPCLIPModel
from anomalib_dpclip.model.lightning_model import DPCLIP
from benchmarks.command import run
from benchmarks.timing import alternating_seconds, device, medians

SIDE = 4096
"""Of the large matrix product that stands for the device's practical peak."""


@torch.inference_mode()
def inference(backbone: str = "ViT-L-14-336", batch_size: int = 1, repeats: int = 5, bf16: bool = False) -> pd.DataFrame:
    """Seconds a batch of the model and of its bare vision tower, at the same precision and batch.

    Args:
        backbone: As in `DPCLIP`; untrained, which costs the same.
        batch_size: Images a batch.
        repeats: Timed rounds.
        bf16: Also measure bf16 autocast.

    Returns:
        One row a precision and candidate. ``of a matrix product`` is the model's rate of arithmetic as a share of what one
        large matrix product reaches on the same device at the same precision: how much of its practical peak is used.
    """
    model, images = model_and_images(backbone, batch_size)
    square = torch.ones(SIDE, SIDE, device=device())
    candidates: dict[str, Callable[[], object]] = {
        "bare tower": lambda: model.backbone.visual(images),
        "DP-CLIP": lambda: model(images),
        "product": lambda: square @ square,
    }
    rows = []
    for precision in ("fp32", "bf16") if bf16 else ("fp32",):
        with torch.autocast(device().type, torch.bfloat16, enabled=precision == "bf16"):
            flops = flops_of(model, images)
            seconds = medians(alternating_seconds(candidates, repeats))
        rate = 2 * SIDE**3 / seconds.pop("product")
        for name, value in seconds.items():
            own = name == "DP-CLIP"  # of the bare tower torch does not count the fused attention
            rows.append(
                {
                    "backbone": backbone,
                    "batch": batch_size,
                    "precision": precision,
                    "what": name,
                    "milliseconds an image": round(1000 * value / batch_size, 2),
                    "of the bare tower": round(value / seconds["bare tower"], 3),
                    "TFLOP/s": round(flops / value / 1e12, 3) if own else None,
                    "of a matrix product": round(flops / value / rate, 2) if own else None,
                }
            )
    return pd.DataFrame(rows)


def model_and_images(backbone: str, batch_size: int = 1) -> tuple[DPCLIPModel, Tensor]:
    """An untrained model, which costs the same as a trained one, and a batch of its size, on the device."""
    model = DPCLIP(backbone=backbone, pretrained="random").model.eval().to(device())
    # Not those of a class: some backbones' tokenizers would have to be downloaded.
    model.anchors.copy_(functional.normalize(torch.randn(model.backbone.embed_dim, 2), dim=0))
    return model, torch.randn(batch_size, 3, *model.backbone.image_size, device=device())


def flops_of(model: Callable[[Tensor], object], images: Tensor) -> int:
    """FLOP of a batch, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        model(images)
    return counter.get_total_flops()


if __name__ == "__main__":
    run(inference)
