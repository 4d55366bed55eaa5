"""What backbones cost: parameters, and arithmetic of an image at the default size, counted without weights or time."""

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from anomalib_dpclip.clip.loading import backbone_config, build_clip, default_image_size
from anomalib_dpclip.clip.towers import resize_timm, tower_of
from benchmarks.command import run

CHOSEN = (
    "ViT-B-16",
    "ViT-L-14-336",
    "ViT-H-14",
    "ViT-L-14-CLIPA-336",
    "ViT-B-16-SigLIP2-512",
    "ViT-L-16-SigLIP2-512",
    "ViT-SO400M-16-SigLIP2-512",
    "EVA02-B-16",
    "EVA02-L-14-336",
    "PE-Core-B-16",
    "PE-Core-L-14-336",
    "MobileCLIP2-B",
    "MobileCLIP2-L-14",
)


def backbones() -> pd.DataFrame:
    """Parameters and arithmetic of the vision towers among which most will choose.

    Returns:
        One row a backbone: millions of parameters of the vision tower, the default image size, its patch tokens, and GFLOP an
        image of that size (a multiplication and an addition are two).
    """
    rows = []
    for name in tqdm(CHOSEN, desc="backbones", leave=False):
        config = backbone_config(name)
        with torch.device("meta"):
            patch = tower_of(build_clip(config).visual).patch_size
            size = default_image_size(patch)
            visual = build_clip(config, size).visual
            if "timm_model_name" in config["vision_cfg"]:
                resize_timm(visual, size)
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                # Layer by layer: of open_clip's fused layers torch counts nothing.
                tower = tower_of(visual)
                tokens = tower.embed(torch.empty(1, 3, size, size))
                for index in range(tower.depth):
                    tokens = tower.layer(index, tokens)
        rows.append(
            {
                "backbone": name,
                "vision tower, million parameters": round(sum(value.numel() for value in visual.parameters()) / 1e6),
                "layers": tower.depth,
                "patch": patch,
                "image": size,
                "patch tokens": tower.grid[0] * tower.grid[1],
                "GFLOP an image": round(counter.get_total_flops() / 1e9),
            }
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    run(backbones)
