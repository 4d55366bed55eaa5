"""What photos of the target and a lot cost: one image by the text alone, with four photos, and by a panel of 200.

    python -m benchmarks.references_cost [--backbone mini]

Weights and remembered tokens are random; they cost the same. The variants alternate. Seeing the photos or the panel once is
not part of it: so many images by the text alone.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from anomalib_dpclip.method.memory import TokenMemory
from anomalib_dpclip.method.mutual_scoring import PANEL, PROJECTED_WIDTH, mutual_distances, random_projection

from anomalib_dpclip import DPCLIP
from benchmarks.peak_memory import PeakMemory
from benchmarks.results import write_results
from benchmarks.timing import alternating_seconds, medians

PHOTOS = 4


def variants(backbone: str) -> dict[str, Callable[[], object]]:
    """What to run, by what is known of the target."""
    model = DPCLIP(backbone=backbone, pretrained="random", class_name="metal").model.eval()
    image = torch.randn(1, 3, *model.input_size)
    taps, length, width = len(model.tap_layers), model.backbone.grid[0] * model.backbone.grid[1], model.backbone.width
    memory = TokenMemory(torch.randn(taps, PHOTOS * length, width), 0.5, PHOTOS)
    projection = random_projection(width, 0)
    panel = torch.randn(PANEL, taps, length, min(width, PROJECTED_WIDTH)).half()

    def by_text() -> object:
        model.memory = None
        return model(image)

    def by_photos() -> object:
        model.memory = memory
        return model(image)

    def by_lot() -> object:
        seen = model.evidence(image, model.anchors)
        compared = seen.tokens if projection is None else seen.tokens @ projection
        distance = mutual_distances(compared, panel, [None])
        return model.fused_prediction(seen.difference, distance, torch.tensor(0.5), seen.score)

    return {"nothing": by_text, f"{PHOTOS} normal photos": by_photos, f"a lot, by a panel of {PANEL}": by_lot}


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
