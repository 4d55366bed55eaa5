"""What each choice in taking corrections gave, on materials that the adapters have not learned from, with other nuisances.

    python -m benchmarks.corrections_ablation

Three folds of the auxiliary materials: adapters of six epochs learn from four of them, the parts of the other two get a
sticker, a tape or a stamp. Neither a target nor its label is looked at. In each row all other choices are the package's.
"""

import argparse
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch

from anomalib_dpclip.method import corrections
from anomalib_dpclip.post_processing import calibration
from benchmarks.corrections import Line
from benchmarks.nuisances import stamp, sticker, tape
from benchmarks.results import write_results
from benchmarks.surfaces_adapters import learn_surfaces

FOLDS = (("stripes", "concrete"), ("dots", "brick"), ("checkerboard", "leather"))
NUISANCES = {"sticker": sticker, "tape": tape, "stamp": stamp}
CHOICES = {
    "a place is of the nuisance from a share of {} of the views": (corrections, "CORE", (0.5, 0.65, 0.8)),
    "every token {} as far from the memory": (corrections, "LEAST", (0.0, 0.4, 0.6, 0.8)),
    "a look within {} times the farthest": (corrections, "ALIKE", (1.0, 1.2, torch.inf)),
    "thresholds rise by {} of the way": (calibration, "MOST_RAISED", (0.0, 0.2, 0.4)),
}
"""What is tried: its module, its name, and values of it."""


def shares(line: Line) -> Iterator[dict[str, Any]]:
    """Of one line, before and after corrections in each way."""
    known = line.model.knowledge
    yield {"way": "before", **line.called_anomalous()}
    for name, (module, constant, values) in CHOICES.items():
        chosen = getattr(module, constant)
        for value in values:
            with patch.object(module, constant, value):
                line.model.add_corrections(line.corrections)
            way = name.format(value) + (", as chosen" if value == chosen else "")
            yield {"way": way, **line.called_anomalous()}
            line.model.knowledge = known


def main() -> None:
    """Measure and write ``corrections_ablation.csv`` and ``.md``, means over materials and nuisances."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, default=Path("datasets/Surfaces"))
    parser.add_argument("--out", type=Path, default=Path("benchmark_results"))
    parser.add_argument("--seed", type=int, default=111)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for held_out in FOLDS:
        with TemporaryDirectory() as folder:
            adapters = learn_surfaces(Path(folder) / "fold.safetensors", arguments.root, arguments.seed, held_out)
            for category, (name, nuisance) in product(held_out, NUISANCES.items()):
                line = Line(adapters, arguments.root, category, nuisance, arguments.seed, fixed=True)
                rows += [{"category": category, "nuisance": name, **row} for row in shares(line)]
                print(category, name, flush=True)  # noqa: T201
    table = pd.DataFrame(rows).rename(columns={"label": "nuisance called anomalous", "damaged, label": "damaged, nuisance"})
    means = table.groupby("way", sort=False).mean(numeric_only=True).round(1).reset_index()
    write_results(means, arguments.out, "corrections_ablation", "python -m benchmarks.corrections_ablation")


if __name__ == "__main__":
    main()
