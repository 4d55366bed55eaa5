"""What photos of the target cost: one image by the text alone, and with four photos, by one network or another.

    python -m benchmarks.references_cost [--backbone mini]

Weights and remembered tokens are random; they cost the same. The variants alternate. Seeing the photos or the panel once is
not part of it: so many images by the text alone.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import timm
import torch

from anomalib_dpclip import DPCLIP
from anomalib_dpclip.clip.feature_tower import EMBEDDED
from anomalib_dpclip.model.arguments import MemoryOptions
from anomalib_dpclip.model.good_images import comparison_of
from anomalib_dpclip.scorers.fusion import Fusion
from anomalib_dpclip.scorers.memory_scorer import MemoryScorer, MemoryState, TokenMemory, sparse_numbers
from anomalib_dpclip.scorers.scorer import Scorer
from benchmarks.peak_memory import PeakMemory
from benchmarks.results import write_results
from benchmarks.timing import alternating_seconds, medians

PHOTOS = 4

DINO = "vit_base_patch14_dinov2"
"""A second network as large as what is used for photographs."""


def memory_scorer(model: DPCLIP) -> MemoryScorer:
    """A memory as large as that of `PHOTOS` photos, of tokens by chance."""
    comparison = comparison_of(model)
    tokens, *_ = comparison.encode(torch.zeros(1, 3, *model.image_size), model.model.anchors)
    kept = [len(sparse_numbers(torch.arange(grid[0] * grid[1]), grid)) for grid in comparison.source.grids]
    layers = [torch.randn(PHOTOS * count, each.shape[2]) for count, each in zip(kept, tokens, strict=True)]
    nothing = torch.tensor([0.0, 1.0])
    memory = TokenMemory(layers, torch.ones(len(layers)), PHOTOS)
    state = MemoryState(memory, Fusion(nothing, nothing, nothing, 1.0), torch.zeros(1, 4))
    return MemoryScorer(comparison, state)


def variants(backbone: str) -> dict[str, Callable[[], object]]:
    """What to run, by what is known of the target."""
    common: dict[str, Any] = {"backbone": backbone, "pretrained": "random", "class_name": "metal"}
    own = DPCLIP(**common).eval()
    scorers: dict[str, Scorer] = {"nothing": own.text_scorer(), f"{PHOTOS} good photos, its own tokens": memory_scorer(own)}
    with TemporaryDirectory() as folder:
        weights = Path(folder) / "random.pth"
        torch.save(timm.create_model(DINO).state_dict(), weights)
        for network, options in ((EMBEDDED, MemoryOptions()), (DINO, MemoryOptions(weights=str(weights)))):
            model = DPCLIP(**common, memory_backbone=network, memory=options).eval()
            scorers[f"{PHOTOS} good photos, {network}"] = memory_scorer(model)
    anchors = own.model.anchors
    return {name: partial(each.score, torch.randn(1, 3, *each.image_size), anchors) for name, each in scorers.items()}


@torch.inference_mode()
def main() -> None:
    """Measure and write ``references_cost.csv`` and ``.md``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", default="ViT-L-14-336")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmark_results"))
    arguments = parser.parse_args()
    runs = variants(arguments.backbone)
    # The processor's time: whatever else the machine does.
    times = medians(alternating_seconds(runs, arguments.repeats, time.process_time))
    rows = []
    for knows, run in runs.items():
        memory = PeakMemory(None)
        run()
        rows.append(
            {"backbone": arguments.backbone, "knows": knows, "processor seconds": times[knows], "peak MiB": memory.mebibytes()}
        )
    table = pd.DataFrame(rows)
    table["times as much"] = (table["processor seconds"] / table["processor seconds"].iloc[0]).round(3)
    command = f"python -m benchmarks.references_cost --backbone {arguments.backbone} --repeats {arguments.repeats}"
    write_results(table.round({"processor seconds": 2, "peak MiB": 0}), arguments.out, "references_cost", command)


if __name__ == "__main__":
    main()
