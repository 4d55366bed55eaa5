"""How time and memory of a training step grow with image size, batch and taps, and text anchors with classes."""

import time
from typing import TYPE_CHECKING, Any

import pandas as pd

from anomalib_dpclip.model.lightning_model import DPCLIP
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


def scaling(backbone: str = "mini", repeats: int = 5) -> pd.DataFrame:
    """Vary one thing at a time.

    Args:
        backbone: As in `DPCLIP`; the tap layers measured are those of six layers.
        repeats: Timed rounds.

    Returns:
        One row a setting: ``what`` grows, to which ``value``, ``ms`` and ``peak MiB`` (of the whole process on the CPU).
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
    table = pd.DataFrame(rows, columns=["what", "value", "ms", "peak MiB"])
    return table.astype({"peak MiB": "Int64"})


def _anchor_seconds(backbone: str, classes: int) -> float:
    model = DPCLIP(backbone=backbone, pretrained="random")
    start = time.perf_counter()
    for index in range(classes):
        model.anchors_for("metal " * (index + 1))
    return time.perf_counter() - start


def scaling_chart(table: pd.DataFrame) -> "Figure":
    """Time and memory over each thing that grows.

    Args:
        table: Of `scaling`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.2), layout="constrained")
    groups = table.groupby("what", sort=False)
    for axes, (what, rows) in zip(figure.subplots(1, groups.ngroups), groups, strict=True):
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
