"""What precisions cost in accuracy: metrics on the four targets of Surfaces of one trained model, exported in every way."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from anomalib.data import ImageBatch
from scipy.stats import spearmanr

from anomalib_dpclip.data.surfaces.data_module import Surfaces
from anomalib_dpclip.data_sets.class_names import describe
from anomalib_dpclip.metrics import field_metrics
from anomalib_dpclip.model.lightning_model import DPCLIP
from benchmarks.command import run
from benchmarks.surfaces_adapters import learn_surfaces

WAYS: dict[str, tuple[str | None, bool]] = {
    "OpenVINO, fp32": (None, True),
    "OpenVINO, its own precision": (None, False),
    "OpenVINO FP16, its own precision": ("fp16", False),
    "OpenVINO INT8 weights, fp32": ("int8", True),
    "OpenVINO INT8_PTQ, fp32 else": ("int8_ptq", True),
    "OpenVINO INT8_PTQ, its own precision else": ("int8_ptq", False),
}
"""anomalib's compression, and whether what is not in INT8 is computed in fp32 or as OpenVINO likes: bf16 where it can."""

METRICS = ("image_AUROC", "pixel_AUROC", "pixel_AP")


def precision(root: Path = Path("datasets/Surfaces"), seed: int = 111) -> pd.DataFrame:
    """Metrics of each exported file on the test images, against those of fp32.

    Args:
        root: Folder of Surfaces; what is missing is drawn.
        seed: Of the adapters, trained here.

    Returns:
        One row a target and file: percent in fp32, and points lost by the others (below 0: won); the largest change of a map
        relative to its range; and the rank correlation of the maps with those of fp32.
    """
    with TemporaryDirectory() as folder:
        weights = learn_surfaces(Path(folder) / "adapters.safetensors", root, seed)
        rows = [row for category in Surfaces.target_categories for row in _rows(weights, root, category)]
    table = pd.DataFrame(rows)
    means = table.drop(columns=["target"]).groupby("file", sort=False).mean(numeric_only=True).reset_index()
    rounded = means.round({name: 2 if name.startswith(METRICS) else 4 for name in means})
    return pd.concat([table, rounded.assign(target="mean")], ignore_index=True)[table.columns]


def _rows(weights: Path, root: Path, category: str) -> Iterator[dict[str, Any]]:
    import openvino

    data = Surfaces(root=root, category=category)
    data.prepare_data()
    data.setup()
    items = [data.test_data[index] for index in range(len(data.test_data))]
    model = DPCLIP(weights=weights, class_name=describe("Surfaces", category), visualizer=False).eval()
    reference: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        paths = {
            compression: model.to_openvino(Path(folder) / str(compression), compression_type=compression, datamodule=data)  # type: ignore[arg-type]
            for compression in dict.fromkeys(compression for compression, _ in WAYS.values())
        }
        for name, (compression, float32) in WAYS.items():
            hint = {"INFERENCE_PRECISION_HINT": "f32"} if float32 else {}
            compiled = openvino.Core().compile_model(paths[compression], "CPU", hint)
            metrics, maps = _evaluate(compiled, items)
            reference = reference or {"metrics": metrics, "maps": maps}
            lost = {f"{key} lost": round(reference["metrics"][key] - metrics[key], 2) for key in METRICS}
            change = np.abs(maps - reference["maps"]).max() / np.ptp(reference["maps"])
            rank = spearmanr(maps.ravel(), reference["maps"].ravel()).statistic
            yield {
                "target": category,
                "file": name,
                **{key: round(metrics[key], 2) for key in METRICS},
                **lost,
                "largest change of a map": round(float(change), 4),
                "rank correlation": round(float(rank), 4),
            }


def _evaluate(compiled: Any, items: list[Any]) -> tuple[dict[str, float], np.ndarray]:
    """Metrics in percent, and maps ``(N, H, W)``."""
    metrics = [metric for metric in field_metrics() if metric.name in METRICS]
    maps = []
    for item in items:
        outputs = compiled(np.asarray(item.image)[None])
        maps.append(np.array(outputs["anomaly_map"]))
        batch = ImageBatch(
            image=item.image[None],
            gt_label=item.gt_label[None],
            gt_mask=torch.as_tensor(item.gt_mask)[None],
            anomaly_map=torch.from_numpy(maps[-1]),
            pred_score=torch.from_numpy(np.array(outputs["pred_score"])),
        )
        for metric in metrics:
            metric.update(batch)
    return {metric.name: 100 * float(metric.compute()) for metric in metrics}, np.concatenate(maps)


if __name__ == "__main__":
    run(precision)
