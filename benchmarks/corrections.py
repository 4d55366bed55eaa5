"""What five corrections change: a printed label that training never saw, on the four targets of Surfaces.

    python -m benchmarks.corrections --adapters seed111.safetensors seed112.safetensors --seeds 111 112

Adapters are those of ``configs/quickstart.yaml``, one file a seed, by ``save_adapters``. Ten photos of the training split are
the memory and set the thresholds, five others with the label are the corrections. A seed also chooses photos and labels.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageDraw

from anomalib_dpclip import DPCLIP, Surfaces
from anomalib_dpclip.method.class_names import describe
from anomalib_dpclip.model.captions import font
from anomalib_dpclip.model.references import as_tensor
from benchmarks.results import write_results

MEMORY, CORRECTIONS = 10, 5
HEIGHT = 0.17
"""Of the label, of the image's side; it is twice as wide."""

JITTER = 3
"""Pixels by which the label of a line is off its place at most."""


def with_label(photo: Image.Image, rng: np.random.Generator, place: tuple[int, int] | None) -> Image.Image:
    """A photo with a printed label, a number and a bar code of its own: at about a place, or anywhere."""
    height = round(HEIGHT * photo.height)
    label = Image.new("RGB", (2 * height, height), (245, 245, 240))
    draw = ImageDraw.Draw(label)
    draw.text((2, 1), f"LOT {rng.integers(10000):04}", "black", font(height // 2 - 1))
    left = 3
    while left < label.width - 4:
        width = int(rng.integers(1, 3))
        draw.rectangle((left, height // 2 + 1, left + width - 1, height - 4), fill="black")
        left += width + int(rng.integers(1, 3))
    draw.rectangle((0, 0, label.width - 1, height - 1), outline=(90, 90, 90))
    corner = _corner(photo, rng) if place is None else tuple(int(each + rng.integers(-JITTER, JITTER + 1)) for each in place)
    labelled = photo.copy()
    labelled.paste(label, corner)  # type: ignore[arg-type]  # two of them
    return labelled


def _corner(photo: Image.Image, rng: np.random.Generator) -> tuple[int, int]:
    """Where a label is whole, with room for the jitter."""
    height = round(HEIGHT * photo.height)
    across, down = photo.width - 2 * height - JITTER, photo.height - height - JITTER
    return int(rng.integers(JITTER, across)), int(rng.integers(JITTER, down))


def measured(adapters: Path, root: Path, category: str, seed: int, *, fixed: bool) -> dict[str, object]:
    """Shares called anomalous, before and after the corrections, in percent."""
    model = DPCLIP(weights=adapters, class_name=describe("Surfaces", category), visualizer=False).eval()
    Surfaces(root=root, category=category).prepare_data()
    rng = np.random.default_rng([seed, Surfaces.categories.index(category), fixed])
    train = _photos(root / category / "train" / "good")
    good = _photos(root / category / "test" / "good")
    damaged = [photo for kind in sorted((root / category / "ground_truth").iterdir()) for photo in _photos(_test(kind))]
    place = _corner(good[0], rng) if fixed else None
    order = rng.permutation(len(train))
    labelled = [with_label(photo, rng, place) for photo in good]
    corrections = [with_label(train[index], rng, place) for index in order[MEMORY : MEMORY + CORRECTIONS]]
    model.set_references([as_tensor(train[index]) for index in order[:MEMORY]])
    sets = {"label": labelled, "no label": good, "damaged": damaged}
    before = {name: called_anomalous(model, photos) for name, photos in sets.items()}
    model.add_corrections([as_tensor(photo) for photo in corrections])
    after = {name: called_anomalous(model, photos) for name, photos in sets.items()}
    columns = {f"{name}, {when}": values[name] for name in sets for when, values in (("before", before), ("after", after))}
    return {"label": "in its place" if fixed else "anywhere", "category": category, "seed": seed, **columns}


def _test(kind: Path) -> Path:
    return kind.parents[1] / "test" / kind.name


def _photos(folder: Path) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.png"))]


def called_anomalous(model: DPCLIP, photos: Sequence[Image.Image]) -> float:
    """Share of photos that a model calls anomalous, in percent."""
    images = torch.stack([as_tensor(photo) for photo in photos])
    scores = [
        model.post_processor(model.model.predict(model.pre_processor.transform(part), model.model.anchors)).pred_score
        for part in images.split(40)
    ]
    return round(100 * (torch.cat(scores) > 0.5).double().mean().item(), 2)


@torch.no_grad()
def main() -> None:
    """Measure and write ``corrections.csv`` and ``corrections.md``, or ``corrections_anywhere``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--adapters", type=Path, nargs="+", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--anywhere", action="store_true", help="Labels are anywhere, not in their place.")
    parser.add_argument("--root", type=Path, default=Path("datasets/Surfaces"))
    parser.add_argument("--out", type=Path, default=Path("benchmark_results"))
    arguments = parser.parse_args()
    rows = []
    for adapters, seed in zip(arguments.adapters, arguments.seeds, strict=True):
        for category in Surfaces.target_categories:
            rows.append(measured(adapters, arguments.root, category, seed, fixed=not arguments.anywhere))
            print(*rows[-1].values(), flush=True)  # noqa: T201
    table = pd.DataFrame(rows)
    mean = table.drop(columns=["category", "seed", "label"]).mean().round(2)
    whole = pd.concat([table, pd.DataFrame([{"label": rows[0]["label"], "category": "mean", "seed": "", **mean}])])
    name = "corrections_anywhere" if arguments.anywhere else "corrections"
    write_results(whole, arguments.out, name, "python -m benchmarks.corrections " + " ".join(sys.argv[1:]))


if __name__ == "__main__":
    main()
