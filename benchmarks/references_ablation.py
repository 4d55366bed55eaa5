"""What each choice in judging by photos gave, on materials that the adapters have not learned from.

    python -m benchmarks.references_ablation --adapters FOLD.safetensors --categories stripes concrete [--root ...]

A fold's adapters have learned from the other auxiliary materials only; no target is looked at.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from anomalib_dpclip.method.adapters import unit
from anomalib_dpclip.method.anomaly_map import resize_map
from anomalib_dpclip.method.memory import tap_mean_distance
from anomalib_dpclip.model.pre_processor import CLIPPreProcessor
from anomalib_dpclip.model.references import read_references, resized, training_references
from benchmarks.references import Target, text_alone
from benchmarks.results import table_of

PHOTOS = (1, 4, 16)
BLURS = (0.0, 0.5, 1.0)


def taps_of(target: Target, images: Tensor) -> Tensor:
    """Unit tap tokens ``(N, T, L, C)``, not centred."""
    parts = [target.model.tap_tokens(CLIPPreProcessor(target.model.input_size).normalize(part))[0] for part in images.split(16)]
    return torch.cat([unit(torch.stack(taps, dim=1)) for taps in parts])


def rows_of(target: Target, seed: int) -> Iterator[dict]:
    """Every choice, the memory alone: kinds of token, then of blur."""
    items = [target.data.test_data[index] for index in range(len(target.data.test_data))]
    tokens = taps_of(target, torch.stack([item.image for item in items]))
    grid = target.model.backbone.grid
    for photos in PHOTOS:
        paths = training_references(target.data, photos, seed)
        known = taps_of(target, resized(read_references(paths), CLIPPreProcessor(target.model.input_size).resize_only))
        distances = {"raw tokens": compare(tokens, known), "centred tokens": compare(centred(tokens), centred(known))}
        raw = distances["raw tokens"]
        distances["raw, less the image's median"] = raw - raw.median(dim=1, keepdim=True)[0]
        distances["centred, made unit again"] = compare(unit(centred(tokens)), unit(centred(known)))
        distances["no photo: distance to the own mean"] = centred(tokens).norm(dim=-1).mean(1)
        for name, distance in distances.items():
            for sigma in BLURS if name == "centred tokens" else (0.5,):
                maps = distance.unflatten(1, grid).unsqueeze(1)
                maps = gaussian_blur(maps, [7, 7], [sigma, sigma]) if sigma else maps
                maps = resize_map(maps.squeeze(1), target.model.input_size)
                maps = (maps - maps.min()) / (maps.max() - maps.min())
                metrics = target.metrics(maps, maps.amax(dim=(-2, -1)))
                yield {"photos": photos, "choice": name, "blur": sigma, **metrics}


def centred(tokens: Tensor) -> Tensor:
    """Tokens ``(N, T, L, C)`` less their image's mean."""
    return tokens - tokens.mean(dim=2, keepdim=True)


def compare(tokens: Tensor, known: Tensor) -> Tensor:
    """Distances ``(N, L)`` of tokens to those of photos."""
    return tap_mean_distance(tokens, known.transpose(0, 1).flatten(1, 2))


@torch.no_grad()
def main() -> None:
    """Print a Markdown table, means over the categories."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--adapters", type=Path, required=True)
    parser.add_argument("--categories", nargs="+", required=True)
    parser.add_argument("--root", type=Path, default=Path("datasets/Surfaces"))
    parser.add_argument("--seed", type=int, default=111)
    arguments = parser.parse_args()
    rows = []
    for category in arguments.categories:
        target = Target(arguments.adapters, arguments.root, category)
        text = [{"photos": 0, "choice": "text", "blur": 1.0, **row} for row in text_alone(target)]
        rows += [{"category": category, **row} for row in [*text, *rows_of(target, arguments.seed)]]
    metrics = ["image_AUROC", "pixel_AUROC", "pixel_AP"]
    means = pd.DataFrame(rows).groupby(["photos", "choice", "blur"], sort=False)[metrics].mean().round(1).reset_index()
    print(table_of(means))  # noqa: T201


if __name__ == "__main__":
    main()
