"""The solar cells of ELPV as a folder that `configs/benchmark/photographs.yaml` compares on: photographs without masks.

    pip install elpv-dataset
    python -m benchmarks.elpv --to elpv
    dpclip benchmark --config configs/benchmark/photographs.yaml --folders elpv --out benchmark_results/elpv.csv

A cell is anomalous where a defect is likelier than not. Of the good ones some are to be known, others are tested.
"""

import argparse
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np

COUNTS = {"train": 60, "test/good": 100, "test/bad": 100}
"""Number of cells, drawn by the seed."""


def elpv_root() -> Path:
    """Folder of the images and of their list.

    Raises:
        ModuleNotFoundError: If the package elpv-dataset is not installed.
    """
    package = find_spec("elpv_dataset")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the photographs are not here: pip install elpv-dataset")
    return Path(package.origin).parent / "data"


def write_folder(root: Path, to: Path, seed: int) -> None:
    """Copy cells into the layout of anomalib's `Folder`."""
    lines = [line.split() for line in (root / "labels.csv").read_text(encoding="utf-8").splitlines()]
    order = np.random.default_rng(seed).permutation(len(lines))
    shuffled = [lines[number] for number in order]
    good, bad = ([path for path, probability, _ in shuffled if (float(probability) >= 0.5) == kind] for kind in (False, True))
    known = COUNTS["train"]
    chosen = {"train": good[:known], "test/good": good[known:][: COUNTS["test/good"]], "test/bad": bad[: COUNTS["test/bad"]]}
    for name, paths in chosen.items():
        (to / name).mkdir(parents=True)
        for path in paths:
            shutil.copy(root / path, to / name)


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_folder(elpv_root(), arguments.to, arguments.seed)


if __name__ == "__main__":
    main()
