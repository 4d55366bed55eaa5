"""What five corrections change: a printed label that training never saw, on the four targets of Surfaces.

    python -m benchmarks.corrections

For each seed adapters are trained as ``configs/quickstart.yaml`` says. Ten photos of the training split are the memory and
set the thresholds, five others with the label are the corrections. A seed also chooses photos and labels.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from PIL import Image

from anomalib_dpclip import DPCLIP, Surfaces
from anomalib_dpclip.method.class_names import describe
from anomalib_dpclip.references.reference_images import as_tensor
from benchmarks.nuisances import Nuisance, label, some_place, with_nuisance
from benchmarks.results import write_results
from benchmarks.surfaces_adapters import learn_surfaces

MEMORY, CORRECTIONS = 10, 5

VISIBLE = 0.5
"""Share of a defect that a label leaves to be seen at least, if the defect is to be found beside it."""


class Line:
    """A material whose parts get a nuisance, and a model that has seen ten of them without it.

    Args:
        adapters: File of the adapters.
        root: Folder of Surfaces.
        category: The material.
        nuisance: What the parts get.
        seed: Of what is chosen and drawn.
        fixed: Whether it comes in its place.

    Attributes:
        model: Knows the ten.
        corrections: Five others, with the nuisance.
        sets: Test photos by name.
    """

    def __init__(self, adapters: Path, root: Path, category: str, nuisance: Nuisance, seed: int, *, fixed: bool) -> None:
        self.model = DPCLIP(weights=adapters, class_name=describe("Surfaces", category), visualizer=False).eval()
        Surfaces(root=root, category=category).prepare_data()
        rng = np.random.default_rng([seed, Surfaces.categories.index(category), fixed])
        folder = root / category
        train, good = (_photos(folder / split / "good") for split in ("train", "test"))
        kinds = sorted(each.name for each in (folder / "ground_truth").iterdir())
        damaged = [photo for kind in kinds for photo in _photos(folder / "test" / kind)]
        masks = [mask for kind in kinds for mask in _photos(folder / "ground_truth" / kind)]
        place = some_place(good[0], nuisance, rng) if fixed else None
        order = rng.permutation(len(train))
        labelled = [with_nuisance(photo, nuisance, rng, place)[0] for photo in good]
        chosen = order[MEMORY : MEMORY + CORRECTIONS]
        self.corrections = [as_tensor(with_nuisance(train[index], nuisance, rng, place)[0]) for index in chosen]
        both = []
        for photo, mask in zip(damaged, masks, strict=True):
            covered, cover = with_nuisance(photo, nuisance, rng, place)
            defect = np.asarray(mask)[..., 0] > 0
            if (defect & (np.asarray(cover) == 0)).sum() >= VISIBLE * defect.sum():
                both.append(covered)
        self.sets = {"label": labelled, "no label": good, "damaged": damaged, "damaged, label": both}
        self.model.set_references([as_tensor(train[index]) for index in order[:MEMORY]])

    def called_anomalous(self) -> dict[str, float]:
        """Share of each set's photos that the model calls anomalous, in percent."""
        return {name: called_anomalous(self.model, photos) for name, photos in self.sets.items()}


def measured(adapters: Path, root: Path, category: str, seed: int, *, fixed: bool) -> dict[str, object]:
    """Shares called anomalous, before and after the corrections, in percent."""
    line = Line(adapters, root, category, label, seed, fixed=fixed)
    before = line.called_anomalous()
    line.model.add_corrections(line.corrections)
    after = line.called_anomalous()
    columns = {f"{name}, {when}": share[name] for name in before for when, share in (("before", before), ("after", after))}
    return {"label": "in its place" if fixed else "anywhere", "category": category, "seed": seed, **columns}


def _photos(folder: Path) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.png"))]


@torch.no_grad()
def called_anomalous(model: DPCLIP, photos: Sequence[Image.Image]) -> float:
    """Share of photos that a model calls anomalous, in percent."""
    images = torch.stack([as_tensor(photo) for photo in photos])
    scores = [
        model.post_processor(model.model.predict(model.pre_processor.transform(part), model.model.anchors)).pred_score
        for part in images.split(40)
    ]
    return round(100 * (torch.cat(scores) > 0.5).double().mean().item(), 2)


def main() -> None:
    """Measure and write ``corrections.csv`` and ``corrections.md``, or ``corrections_anywhere``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[111, 112, 113])
    parser.add_argument("--anywhere", action="store_true", help="Labels are anywhere, not in their place.")
    parser.add_argument("--root", type=Path, default=Path("datasets/Surfaces"))
    parser.add_argument("--out", type=Path, default=Path("benchmark_results"))
    arguments = parser.parse_args()
    rows = []
    for seed in arguments.seeds:
        with TemporaryDirectory() as folder:
            adapters = learn_surfaces(Path(folder) / "adapters.safetensors", arguments.root, seed)
            for category in Surfaces.target_categories:
                rows.append(measured(adapters, arguments.root, category, seed, fixed=not arguments.anywhere))
                print(*rows[-1].values(), flush=True)  # noqa: T201
    table = pd.DataFrame(rows)
    mean = table.drop(columns=["category", "seed", "label"]).mean().round(2)
    whole = pd.concat([table, pd.DataFrame([{"label": rows[0]["label"], "category": "mean", "seed": "", **mean}])])
    name = "corrections_anywhere" if arguments.anywhere else "corrections"
    write_results(whole, arguments.out, name, " ".join(["python -m benchmarks.corrections", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
