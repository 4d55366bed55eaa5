"""Photos: what a prediction of a folder costs with and without pictures, and of large JPEGs read whole and in part."""

import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from anomalib.engine import Engine
from PIL import Image

from anomalib_dpclip.data.photos import Photos
from anomalib_dpclip.data.surfaces.textures import render_surface
from anomalib_dpclip.model.lightning_model import DPCLIP
from benchmarks.command import run

SMALL, LARGE = 280, (4608, 3456)
_DIFFERENT = 4
"""Photos that are rendered: the others are the same by other names."""


class Variant(NamedTuple):
    """A way to predict.

    Attributes:
        large: Whether the photos are JPEGs of 16 megapixels, not PNGs of 280 x 280.
        pictures: Whether heat maps are written.
        reduced: Whether JPEGs are decoded in part.
    """

    large: bool = False
    pictures: bool = False
    reduced: bool = False


VARIANTS = {
    "280 x 280 PNG": Variant(),
    "280 x 280 PNG, with pictures": Variant(pictures=True),
    "16-megapixel JPEG": Variant(large=True),
    "16-megapixel JPEG, in part": Variant(large=True, reduced=True),
}


def photos(backbone: str = "mini", images: int = 200, large: int = 20, workers: int = 0, repeats: int = 3) -> pd.DataFrame:
    """Predict a folder in several ways, which take turns.

    Args:
        backbone: As in `DPCLIP`; untrained, which costs the same.
        images: Small photos.
        large: Large ones.
        workers: Processes that read.
        repeats: Rounds.

    Returns:
        One row a variant: medians of seconds on the clock, and of seconds of processor time of the main process, in
        milliseconds a photo.
    """
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in VARIANTS}
    with TemporaryDirectory() as folder:
        roots = {kind: make_photos(Path(folder) / str(kind), kind, large if kind else images) for kind in (False, True)}
        model = DPCLIP(backbone=backbone, pretrained="random", weights="clip", class_name="cloth", visualizer=False)
        drawing = DPCLIP(backbone=backbone, pretrained="random", weights="clip", class_name="cloth")
        for _ in range(repeats):
            for name, variant in VARIANTS.items():
                root = roots[variant.large]
                seconds = predict_photos(drawing if variant.pictures else model, root, Path(folder) / "out", variant, workers)
                measured[name].append(tuple(1000 * each / len(list(root.iterdir())) for each in seconds))  # type: ignore[arg-type]
    medians = {name: np.median(rows, axis=0) for name, rows in measured.items()}
    first = [next(name for name in VARIANTS if VARIANTS[name].large == variant.large) for variant in VARIANTS.values()]
    return pd.DataFrame(
        [
            {
                "photos": name,
                "backbone": backbone,
                "threads": torch.get_num_threads(),
                "workers": workers,
                "ms a photo": round(medians[name][0], 1),
                "ms of processor a photo": round(medians[name][1], 1),
                "processor, of without": round(medians[name][1] / medians[reference][1], 2),
            }
            for name, reference in zip(VARIANTS, first, strict=True)
        ]
    )


def make_photos(folder: Path, large: bool, count: int, seed: int = 0) -> Path:
    """A folder of photos, of 16 megapixels or small ones."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for index in range(count):
        suffix = "jpg" if large else "png"
        path = folder / f"{index:04d}.{suffix}"
        if index >= _DIFFERENT:
            path.hardlink_to(folder / f"{index % _DIFFERENT:04d}.{suffix}")
            continue
        surface = Image.fromarray((255 * render_surface("weave", "grey", SMALL, rng)).round().astype(np.uint8))
        if not large:
            surface.save(path)
            continue
        pixels = np.asarray(surface.resize(LARGE, Image.Resampling.BICUBIC)) + rng.normal(0, 4, (*LARGE[::-1], 1))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=92)
    return folder


def predict_photos(model: DPCLIP, root: Path, out: Path, variant: Variant, workers: int) -> tuple[float, float]:
    """Seconds on the clock, and of processor time, that a prediction of a folder takes."""
    shutil.rmtree(out, ignore_errors=True)
    data = Photos(root, num_workers=workers, reduced_jpeg=variant.reduced)
    arguments: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "default_root_dir": out}
    engine = Engine(accelerator="auto", devices=1, **arguments)
    clocks = (time.perf_counter, time.process_time)
    start = [clock() for clock in clocks]
    engine.predict(model=model, datamodule=data, return_predictions=False)
    wall, processor = (clock() - before for clock, before in zip(clocks, start, strict=True))
    return wall, processor


if __name__ == "__main__":
    run(photos)
