"""How time grows: a training step with image size, batch and taps; anchors with classes; judging with tiles, photos and lot."""

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from anomalib_dpclip.model.good_images import comparison_of
from anomalib_dpclip.model.lightning_model import DPCLIP
from anomalib_dpclip.scorers.batch_scorer import mutual_distances
from anomalib_dpclip.scorers.fusion import Fusion
from anomalib_dpclip.scorers.memory_scorer import MemoryScorer, MemoryState, TokenMemory
from anomalib_dpclip.scorers.scorer import Scorer
from benchmarks.command import run
from benchmarks.timing import alternating_seconds, in_new_process, medians
from benchmarks.training import TrainingStep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS: dict[str, dict[int, dict[str, Any]]] = {
    "image size": {size: {"image_size": size} for size in (70, 140, 280, 420)},
    "batch size": {size: {"batch_size": size} for size in (1, 2, 4, 8)},
    "taps": {len(taps): {"tap_layers": taps} for taps in ([6], [3, 6], [2, 3, 5, 6], [1, 2, 3, 4, 5, 6])},
}
"""By what grows and how far: arguments of `TrainingStep`."""

CLASSES = (1, 10, 100)
TILES = (1, 2, 3, 4)
"""Sides of an image in sides of the model: (2 N - 1)^2 tiles."""
PHOTOS = (1, 4, 16, 64)
LOTS = (8, 16, 32, 64)


def scaling(backbone: str = "mini", repeats: int = 5) -> pd.DataFrame:
    """Vary one thing at a time.

    Args:
        backbone: As in `DPCLIP`; the tap layers measured are those of six layers.
        repeats: Timed rounds.

    Returns:
        One row a setting: ``what`` grows, to which ``value``, ``ms`` and ``peak MiB`` (of the whole process on the CPU), and
        the ``exponent`` with which time grows from the smallest value to the largest, by least squares of the logarithms.
    """
    rows = []
    for what, variations in STEPS.items():
        steps = {str(value): TrainingStep(backbone, **arguments) for value, arguments in variations.items()}
        seconds = medians(alternating_seconds(steps, repeats))
        for value, arguments in variations.items():
            step = in_new_process("benchmarks.training:measure_step", backbone=backbone, **arguments)
            rows.append((what, value, round(1000 * seconds[str(value)], 1), round(step["mebibytes"])))
    rows += [
        ("classes (anchors, once)", classes, round(1000 * _anchor_seconds(backbone, classes), 1), None) for classes in CLASSES
    ]
    for what, judging in _judging(backbone).items():
        seconds = medians(alternating_seconds({str(value): judge for value, judge in judging.items()}, repeats))
        rows += [(what, value, round(1000 * seconds[str(value)], 1), None) for value in judging]
    table = pd.DataFrame(rows, columns=["what", "value", "ms", "peak MiB"]).astype({"peak MiB": "Int64"})
    exponents = {what: exponent(group["value"], group["ms"]) for what, group in table.groupby("what")}
    return table.assign(exponent=table["what"].map(exponents).round(2))


def exponent(values: "pd.Series[float]", times: "pd.Series[float]") -> float:
    """The ``p`` of ``time = c value^p`` that fits best, by least squares of the logarithms."""
    return float(np.polyfit(np.log(values), np.log(times), 1)[0])


def _judging(backbone: str) -> dict[str, dict[int, Callable[[], object]]]:
    """What to run, by what grows and how far."""
    runs: dict[str, dict[int, Callable[[], object]]] = {
        "tiles of an image": {},
        "reference photos": {},
        "images of a panel": {},
    }
    for tiles in TILES:
        model = DPCLIP(backbone=backbone, pretrained="random", tiles=tiles, class_name="metal").eval()
        runs["tiles of an image"][(2 * tiles - 1) ** 2] = _prediction(model.scorer, model, 1)
    tower = model.model
    taps, length, width = len(tower.tap_layers), tower.backbone.grid[0] * tower.backbone.grid[1], tower.backbone.width
    for photos in PHOTOS:
        known = DPCLIP(backbone=backbone, pretrained="random", class_name="metal").eval()
        memory = TokenMemory([torch.randn(photos * length, width) for _ in range(taps)], torch.ones(taps), photos=photos)
        nothing = torch.tensor([0.0, 1.0])
        state = MemoryState(memory, Fusion(nothing, nothing, nothing, 1.0), torch.zeros(1, 4))
        runs["reference photos"][photos] = _prediction(MemoryScorer(comparison_of(known), state), known, 8)
    for images in LOTS:
        tokens = torch.randn(images, length, width)
        runs["images of a panel"][images] = partial(mutual_distances, tokens, tokens, range(images))
    return runs


def _prediction(scorer: Scorer, model: DPCLIP, count: int) -> Callable[[], object]:
    images = torch.randn(count, 3, *model.image_size)

    def predict() -> object:
        with torch.inference_mode():
            return scorer.score(images, model.model.anchors)

    return predict


def _anchor_seconds(backbone: str, classes: int) -> float:
    model = DPCLIP(backbone=backbone, pretrained="random")
    start = time.perf_counter()
    for index in range(classes):
        model.target.anchors_for("metal " * (index + 1))
    return time.perf_counter() - start


def scaling_chart(table: pd.DataFrame) -> "Figure":
    """Time and memory over each thing that grows.

    Args:
        table: Of `scaling`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 6), layout="constrained")
    groups = table.groupby("what", sort=False)
    places = figure.subplots(2, -(-groups.ngroups // 2)).flatten()
    for axes in places[groups.ngroups :]:
        axes.axis("off")
    for axes, (what, rows) in zip(places, groups, strict=False):
        axes.set_title(f"grows with its power {rows['exponent'].iloc[0]:.2f}", fontsize="medium")
        axes.plot(rows["value"], rows["ms"], "o-", color="C0")
        axes.set_xlabel(what)
        axes.set_ylabel("ms", color="C0")
        axes.set_ylim(bottom=0)
        if rows["peak MiB"].notna().all():
            memory = axes.twinx()
            memory.plot(rows["value"], rows["peak MiB"].astype(float), "s--", color="C1")
            memory.set_ylabel("peak MiB", color="C1")
            memory.set_ylim(bottom=0)
    return figure


if __name__ == "__main__":
    run(scaling, scaling_chart)
