"""Real photographs: the solar cells of ELPV, judged by surfaces' adapters, by good cells or the lot too, and by PatchCore.

    pip install elpv-dataset
    python -m benchmarks.elpv

The same good cells, chosen by the seed, are DP-CLIP's photos and PatchCore's training images; they are not tested. PatchCore's
ResNet-18 is untrained, since its weights would have to be downloaded. A cell is anomalous where a defect is likelier than not.
"""

import argparse
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from anomalib.engine import Engine
from anomalib.metrics import Evaluator
from anomalib.models import Patchcore
from lightning import seed_everything

from anomalib_dpclip import DPCLIP, JSONLines
from anomalib_dpclip.metrics import field_metrics
from benchmarks.results import write_results
from benchmarks.surfaces_adapters import learn_surfaces

PHOTOS = (4, 16)
NAME = "solar cell"


def elpv_root() -> Path:
    """Folder of the images and of their list.

    Raises:
        ModuleNotFoundError: If the package elpv-dataset is not installed.
    """
    package = find_spec("elpv_dataset")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the photographs are not here: pip install elpv-dataset")
    return Path(package.origin).parent / "data"


def write_list(root: Path, known: int, seed: int, folder: Path) -> Path:
    """List the cells, `known` good ones as training images."""
    lines = [line.split() for line in (root / "labels.csv").read_text(encoding="utf-8").splitlines()]
    samples: list[dict[str, Any]] = [
        {"image_path": path, "label": int(float(probability) >= 0.5), "class_name": NAME} for path, probability, _ in lines
    ]
    good = [sample for sample in samples if not sample["label"]]
    for number in np.random.default_rng(seed).permutation(len(good))[:known]:
        good[number]["split"] = "train"
    metadata = folder / f"elpv{known}-{seed}" / "full-shot.jsonl"
    metadata.parent.mkdir()
    metadata.write_text("".join(json.dumps(sample) + "\n" for sample in samples), encoding="utf-8")
    return metadata


def rows_of(seed: int, surfaces: Path, folder: Path) -> Iterator[dict[str, Any]]:
    """All models of one seed."""
    root = elpv_root()
    adapters = learn_surfaces(folder / f"{seed}.safetensors", surfaces, seed)
    for known in (0, *PHOTOS):
        metadata = write_list(root, max(known, 1), seed, folder)
        common: dict[str, Any] = {"weights": adapters, "class_name": NAME, "visualizer": False, "seed": seed}
        models: dict[str, Any] = {"DP-CLIP": DPCLIP(k_shot=known, **common)}
        if not known:
            models["DP-CLIP, the lot"] = DPCLIP(lot=True, **common)
        if known:
            models["PatchCore"] = Patchcore(
                backbone="resnet18", layers=["layer2", "layer3"], pre_trained=False, visualizer=False
            )
        for label, model in models.items():
            seed_everything(seed)
            model.evaluator = Evaluator(test_metrics=field_metrics())
            engine = Engine(logger=False, default_root_dir=folder / "runs", accelerator="cpu", devices=1)
            datamodule = JSONLines(metadata, root, num_workers=0)
            if label == "PatchCore":
                engine.fit(model=model, datamodule=datamodule)
            (metrics,) = engine.test(model=model, datamodule=datamodule)
            found = {name: round(100 * metrics[name], 1) for name in ("image_AUROC", "image_AP")}
            yield {"model": label, "photos": known, "seed": seed, **found}


def main() -> None:
    """Measure and write ``elpv.csv`` and ``elpv.md``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[111, 112, 113])
    parser.add_argument("--root", type=Path, default=Path("datasets/Surfaces"))
    parser.add_argument("--out", type=Path, default=Path("benchmark_results"))
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        rows = [row for seed in arguments.seeds for row in rows_of(seed, arguments.root, Path(folder))]
    seeds = " ".join(map(str, arguments.seeds))
    write_results(pd.DataFrame(rows), arguments.out, "elpv", f"python -m benchmarks.elpv --seeds {seeds}")


if __name__ == "__main__":
    main()
