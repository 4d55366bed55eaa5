"""What each choice in judging by photos and by the lot gave, on materials that the adapters have not learned from.

    python -m benchmarks.references_ablation

Two folds of the auxiliary materials: adapters of six epochs learn from four of them, the other two are judged. No target is
looked at. Choices of tokens, of their smoothing and projection are judged by the distance alone; ``least share`` is that of
`anomalib_dpclip.scorers.evidence_fusion`, judged with the text.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from anomalib_dpclip.scorers.mutual_scoring import mutual_distances
from anomalib_dpclip.scorers.token_memory import tap_mean_distance
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from anomalib_dpclip.method import evidence_fusion
from anomalib_dpclip.method.adapters import unit
from anomalib_dpclip.method.anomaly_map import resize_map
from anomalib_dpclip.pre_processing.pre_processor import CLIPPreProcessor
from anomalib_dpclip.scorers.memory_fit import MEMORY_TOKENS, build_memory
from anomalib_dpclip.scorers.references import read_references, resized, training_references
from benchmarks.references import Target, lot_share, text_alone
from benchmarks.results import write_results
from benchmarks.surfaces_adapters import learn_surfaces

FOLDS = (("stripes", "concrete"), ("dots", "brick"))
PHOTOS = (1, 4, 16)
BLURS = (0.0, 0.5, 1.0)
LEAST_SHARES = (0.0, 2 / 3, 0.8, 0.9, 0.95, 1.0)
LOT = 100
PROJECTED_WIDTHS = (128, 64, 32)
"""How well a Gaussian projection keeps distances depends on the width it projects to, not on that of the tokens."""


def taps_of(target: Target, images: Tensor) -> Tensor:
    """Unit tap tokens ``(N, T, L, C)``, not centred."""
    parts = [target.model.tap_tokens(CLIPPreProcessor(target.model.input_size).normalize(part))[0] for part in images.split(16)]
    return torch.cat([unit(torch.stack(taps, dim=1)) for taps in parts])


def choices_of_tokens(target: Target, seed: int) -> Iterator[dict]:
    """The memory alone: kinds of token, and of blur."""
    items = [target.data.test_data[index] for index in range(len(target.data.test_data))]
    tokens = taps_of(target, torch.stack([item.image for item in items]))
    grid = target.model.backbone.grid
    for photos in PHOTOS:
        known = taps_of(target, photos_of(target, photos, seed))
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
                yield {"knows": f"{photos} photos", "choice": f"{name}, blur {sigma}", **metrics}


def choices_of_share(target: Target, seed: int) -> Iterator[dict]:
    """Text and memory, or text and lot, for several least shares; 0 is the discriminant alone, 1 the memory alone."""
    images = photos_of(target, max(PHOTOS), seed)
    order = torch.randperm(len(target.labels), generator=torch.Generator().manual_seed(seed))[:LOT]
    tokens = target.evidence.tokens[order].half()
    lot = mutual_distances(tokens, tokens, range(len(tokens)))
    normalise = CLIPPreProcessor(target.model.input_size).normalize
    built_in = evidence_fusion.MIN_MEMORY_WEIGHT
    for least in LEAST_SHARES:
        choice = f"least share {least:.2f}"
        evidence_fusion.MIN_MEMORY_WEIGHT = least
        for photos in PHOTOS:
            memory, _ = build_memory(target.model, images[:photos], normalise, target.anchors, MEMORY_TOKENS, seed)
            metrics = target.fused(memory(target.evidence.tokens), memory.share)
            yield {"knows": f"{photos} photos", "choice": choice, "share": memory.share.item(), **metrics}
        share = lot_share(target, lot, order)
        yield {"knows": f"lot of {LOT}", "choice": choice, "share": share, **target.fused(lot, share, order)}
    evidence_fusion.MIN_MEMORY_WEIGHT = built_in


def choices_of_projection(target: Target, seed: int) -> Iterator[dict]:
    """The lot alone, its tokens in single precision, in half precision, and projected at random to fewer values."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(target.labels), generator=generator)[:LOT]
    tokens = target.evidence.tokens[order]
    compared = {"single precision": tokens, "half precision": tokens.half()}
    for width in PROJECTED_WIDTHS:
        projection = torch.randn(tokens.shape[-1], width, generator=generator) / math.sqrt(width)
        compared[f"projected to {width}, half precision"] = (tokens @ projection).half()
    for choice, values in compared.items():
        distance = mutual_distances(values, values, range(len(values)))
        yield {"knows": f"lot of {LOT}", "choice": choice, **target.fused(distance, 1.0, order)}


def photos_of(target: Target, photos: int, seed: int) -> Tensor:
    """Normal training images ``(K, 3, H, W)`` of the model's size; fewer are the first of more."""
    paths = training_references(target.data, photos, seed)
    return resized(read_references(paths), CLIPPreProcessor(target.model.input_size).resize_only)


def centred(tokens: Tensor) -> Tensor:
    """Tokens ``(N, T, L, C)`` less their image's mean."""
    return tokens - tokens.mean(dim=2, keepdim=True)


def compare(tokens: Tensor, known: Tensor) -> Tensor:
    """Distances ``(N, L)`` of tokens to those of photos."""
    return tap_mean_distance(tokens, known.transpose(0, 1).flatten(1, 2))


def main() -> None:
    """Measure and write ``references_ablation.csv`` and ``.md``, means over the materials that were held out."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, default=Path("datasets/Surfaces"))
    parser.add_argument("--out", type=Path, default=Path("benchmark_results"))
    parser.add_argument("--seed", type=int, default=111)
    arguments = parser.parse_args()
    rows: list[dict] = []
    for held_out in FOLDS:
        with TemporaryDirectory() as folder:
            adapters = learn_surfaces(Path(folder) / "fold.safetensors", arguments.root, arguments.seed, held_out)
            for category in held_out:
                with torch.no_grad():
                    target = Target(adapters, arguments.root, category)
                    rows += [{**row, "choice": "text"} for row in text_alone(target)]
                    for choices in (choices_of_tokens, choices_of_share, choices_of_projection):
                        rows += choices(target, arguments.seed)
    metrics = ["image_AUROC", "pixel_AUROC", "pixel_AP"]
    means = pd.DataFrame(rows).groupby(["knows", "choice"], sort=False)[["share", *metrics]].mean()
    rounded = means.round({"share": 2, **dict.fromkeys(metrics, 1)}).reset_index()
    write_results(rounded, arguments.out, "references_ablation", "python -m benchmarks.references_ablation")


if __name__ == "__main__":
    main()
