"""Inference: the whole model, maps and scores, against the bare frozen tower's own forward."""

from copy import copy

import pandas as pd
import torch

from anomalib_dpclip.bench.timing import alternating_seconds, device, medians
from anomalib_dpclip.lightning_model import DPCLIP


def inference(
    backbone: str = "ViT-L-14-336",
    batch_size: int = 1,
    repeats: int = 5,
    bf16: bool = False,
    compiled: bool = False,
) -> pd.DataFrame:
    """Seconds a batch of the model and of its bare vision tower, at the same precision and batch.

    Args:
        backbone: As in `DPCLIP`; untrained, which costs the same.
        batch_size: Images a batch.
        repeats: Timed rounds.
        bf16: Also measure bf16 autocast.
        compiled: Also measure the model under `torch.compile`.

    Returns:
        One row a precision and candidate.
    """
    model = DPCLIP(backbone=backbone, pretrained="random", class_name="metal").model.eval().to(device())
    images = torch.randn(batch_size, 3, *model.backbone.image_size, device=device())
    tower = model.backbone.visual
    candidates = {"bare tower": tower, "DP-CLIP": model}
    if compiled:
        candidates["DP-CLIP, compiled"] = copy(model)
        candidates["DP-CLIP, compiled"].compiled = True
    rows = []
    with torch.inference_mode():
        for precision in ("fp32", "bf16") if bf16 else ("fp32",):
            with torch.autocast(device().type, torch.bfloat16, enabled=precision == "bf16"):
                runs = {name: (lambda run=run: run(images)) for name, run in candidates.items()}
                seconds = medians(alternating_seconds(runs, repeats))
            for name, value in seconds.items():
                rows.append(
                    {
                        "backbone": backbone,
                        "batch": batch_size,
                        "precision": precision,
                        "what": name,
                        "milliseconds an image": round(1000 * value / batch_size, 2),
                        "of the bare tower": round(value / seconds["bare tower"], 3),
                    }
                )
    return pd.DataFrame(rows)
