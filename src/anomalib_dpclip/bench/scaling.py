"""How time and memory of a training step grow with image size, batch and taps, and text anchors with classes."""

import time
from typing import Any

import pandas as pd

from anomalib_dpclip.bench.timing import alternating_seconds, in_new_process, medians
from anomalib_dpclip.bench.training import TrainingStep
from anomalib_dpclip.lightning_model import DPCLIP

STEPS: dict[str, list[dict[str, Any]]] = {
    "image_size": [{"image_size": size} for size in (70, 140, 280, 420)],
    "batch_size": [{"batch_size": size} for size in (1, 2, 4, 8)],
    "tap_layers": [{"tap_layers": layers} for layers in ([6], [3, 6], [2, 3, 5, 6], [1, 2, 3, 4, 5, 6])],
}


def scaling(backbone: str = "mini", repeats: int = 5) -> pd.DataFrame:
    """Vary one thing at a time.

    Args:
        backbone: As in `DPCLIP`; the tap layers measured are those of six layers.
        repeats: Timed rounds.

    Returns:
        One row a setting.
    """
    rows = []
    for variations in STEPS.values():
        names = {f"{key}={value}": {key: value} for variation in variations for key, value in variation.items()}
        steps = {name: TrainingStep(backbone, **variation) for name, variation in names.items()}
        seconds = medians(alternating_seconds(steps, repeats))
        rows += [
            {
                "setting": name,
                "ms a step": round(1000 * seconds[name], 1),
                "peak MiB": round(in_new_process("bench.training:peak_memory", backbone=backbone, **variation)),
            }
            for name, variation in names.items()
        ]
    for classes in (1, 10, 100):
        model = DPCLIP(backbone=backbone, pretrained="random")
        start = time.perf_counter()
        for index in range(classes):
            model.anchors_for("metal " * (index + 1))
        rows.append(
            {"setting": f"classes={classes} (anchors, once)", "ms a step": round(1000 * (time.perf_counter() - start), 1)}
        )
    return pd.DataFrame(rows)
