"""What photos of the target and a lot cost: one image by the text alone, with four photos, and by a panel of 200.

    python -m benchmarks.references_cost [--backbone mini]

Weights and remembered tokens are random; they cost the same. The variants alternate. Seeing the photos or the panel once is
not part of it: so many images by the text alone.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from anomalib_dpclip import DPCLIP
from anomalib_dpclip.clip.feature_tower import EMBEDDED
from anomalib_dpclip.model.good_images import comparison_of
from anomalib_dpclip.scorers.fusion import Fusion
from anomalib_dpclip.scorers.memory_scorer import MemoryScorer, MemoryState, TokenMemory
from anomalib_dpclip.scorers.scorer import Scorer
from benchmarks.peak_memory import PeakMemory
from benchmarks.results import write_results
from benchmarks.timing import alternating_seconds, medians

PHOTOS = 4


def memory_scorer(model: DPCLIP) -> MemoryScorer:
    """A memory as large as that of `PHOTOS` photos, of tokens by chance."""
    comparison = comparison_of(model)
    tokens, _, _ = comparison.encode(torch.zeros(1, 3, *model.image_size), model.model.anchors)
    layers = [torch.randn(PHOTOS * each.shape[1], each.shape[2]) for each in tokens]
    nothing = torch.tensor([0.0, 1.0])
    memory = TokenMemory(layers, torch.ones(len(layers)), PHOTOS)
    state = MemoryState(memory, Fusion(nothing, nothing, nothing, 1.0), torch.zeros(1, 4))
    return MemoryScorer(comparison, state)


def variants(backbone: str) -> dict[str, Callable[[], object]]:
    """What to run, by what is known of the target."""
    models = {
        name: DPCLIP(backbone=backbone, pretrained="random", class_name="metal", memory_backbone=network).eval()
        for name, network in (("own", None), (EMBEDDED, EMBEDDED))
    }
    image = torch.randn(1, 3, *models["own"].image_size)
    scorers: dict[str, Scorer] = {"nothing": models["own"].text_scorer()}
    scorers[f"{PHOTOS} good photos, its own tokens"] = memory_scorer(models["own"])
    scorers[f"{PHOTOS} good photos, {EMBEDDED}"] = memory_scorer(models[EMBEDDED])
    anchors = models["own"].model.anchors
    return {name: partial(scorer.score, image, anchors) for name, scorer in scorers.items()}


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
