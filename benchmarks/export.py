"""Exported files: size, cost of the export, and speed and agreement in their runtimes against torch."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from lightning import seed_everything
from scipy.stats import spearmanr
from torch import Tensor

from anomalib_dpclip.data.surfaces.data_module import Surfaces
from anomalib_dpclip.model.lightning_model import DPCLIP
from benchmarks.command import run
from benchmarks.peak_memory import PeakMemory
from benchmarks.timing import alternating_seconds, in_new_process, medians

Run = Callable[[Tensor], np.ndarray]
"""From images to anomaly maps."""


class Candidate(NamedTuple):
    """A file and how it is run.

    Attributes:
        export_type: anomalib's export type.
        compression: anomalib's compression of OpenVINO files.
        float32: Whether OpenVINO computes in fp32; else as it likes, which is bf16 on processors that can.
    """

    export_type: str
    compression: str | None = None
    float32: bool = True


CANDIDATES = {
    "torch": Candidate("torch"),
    "ONNX, onnxruntime": Candidate("onnx"),
    "OpenVINO, fp32": Candidate("openvino"),
    "OpenVINO, its own precision": Candidate("openvino", float32=False),
    "OpenVINO FP16, its own precision": Candidate("openvino", "fp16", float32=False),
    "OpenVINO INT8 weights, fp32": Candidate("openvino", "int8"),
    "OpenVINO INT8_PTQ, fp32 else": Candidate("openvino", "int8_ptq"),
    "OpenVINO INT8_PTQ, its own precision else": Candidate("openvino", "int8_ptq", float32=False),
}


def export(backbone: str = "ViT-L-14-336", repeats: int = 3, root: Path = Path("datasets/Surfaces")) -> pd.DataFrame:
    """Export a model in every way and run the files, on the CPU, one image at a time.

    Args:
        backbone: As in `DPCLIP`; untrained, which costs the same. All runtimes get as many threads as torch has.
        repeats: Timed rounds.
        root: Folder of Surfaces, whose photos of weave INT8_PTQ is calibrated on; drawn where they are missing.

    Returns:
        One row a file and way to run it. Times are those of images of the model's size. The change of a map is relative to the
        range of torch's map; of an image of another size it includes the file's own resize. The rank correlation of the map's
        pixels is Spearman's.
    """
    model = _model(backbone)
    size = model.model.backbone.image_size
    generator = torch.Generator().manual_seed(0)
    # Values of 8 bits, as photos have: files round to them.
    image = torch.randint(256, (1, 3, *size), generator=generator) / 255
    larger = torch.randint(256, (1, 3, 3 * size[0] // 2, 5 * size[1] // 4), generator=generator) / 255
    with TemporaryDirectory() as folder:
        # All exports come before the first file is opened: each of the two takes gigabytes.
        exports = {
            key: _export_elsewhere(backbone, *key, Path(folder), root)
            for key in dict.fromkeys(c[:2] for c in CANDIDATES.values())
        }
        runs = {name: _runner(candidate, Path(exports[candidate[:2]]["path"]), model) for name, candidate in CANDIDATES.items()}
        maps = {name: run(image) for name, run in runs.items()}
        larger_maps = {name: run(larger) for name, run in runs.items()}
        seconds = medians(alternating_seconds({name: partial(run, image) for name, run in runs.items()}, repeats))
    return pd.DataFrame(
        [
            {
                "backbone": backbone,
                "file": name,
                "MB": round(exports[candidate[:2]]["bytes"] / 1e6, 1),
                "export, s": round(exports[candidate[:2]]["seconds"], 1),
                "export, peak MiB": round(exports[candidate[:2]]["peak"]),
                "ms an image": round(1000 * seconds[name], 1),
                "times as fast as torch": round(seconds["torch"] / seconds[name], 2),
                "change of the map": _change(maps[name], maps["torch"]),
                "of another size": _change(larger_maps[name], larger_maps["torch"]),
                "rank correlation": round(float(spearmanr(maps[name].ravel(), maps["torch"].ravel()).statistic), 4),
            }
            for name, candidate in CANDIDATES.items()
        ]
    )


def _change(found: np.ndarray, expected: np.ndarray) -> str:
    return f"{np.abs(found - expected).max() / np.ptp(expected):.1e}"


def _export_elsewhere(backbone: str, export_type: str, compression: str | None, folder: Path, root: Path) -> dict[str, Any]:
    place = str(folder / f"{export_type}-{compression}")
    arguments = {"export_type": export_type, "compression": compression, "folder": place, "root": str(root)}
    return in_new_process("benchmarks.export:export_file", backbone=backbone, **arguments)


def export_file(backbone: str, export_type: str, compression: str | None, folder: str, root: str) -> dict[str, Any]:
    """Export once, in this process.

    Args:
        backbone: As in `DPCLIP`.
        export_type: anomalib's export type.
        compression: anomalib's compression of OpenVINO files.
        folder: Where to.
        root: As in `export`.

    Returns:
        ``path``, ``bytes`` of all its files, ``seconds``, and the ``peak`` memory of the process in MiB, the model included.
    """
    from anomalib.engine import Engine

    model, peak = _model(backbone), PeakMemory(None)
    start = time.perf_counter()
    path = Engine(logger=False).export(
        model,
        export_type,  # type: ignore[arg-type]
        export_root=folder,
        compression_type=compression,  # type: ignore[arg-type]
        datamodule=Surfaces(root=root, category="weave") if compression == "int8_ptq" else None,
    )
    seconds = time.perf_counter() - start
    written = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    return {"path": str(path), "bytes": written, "seconds": seconds, "peak": peak.mebibytes()}


def _model(backbone: str) -> DPCLIP:
    """The same model in every process."""
    seed_everything(0, verbose=False)
    return DPCLIP(backbone=backbone, pretrained="random", class_name="metal").eval()


def _runner(candidate: Candidate, path: Path, model: DPCLIP) -> Run:
    threads = torch.get_num_threads()
    if candidate.export_type == "torch":
        return lambda image: _in_torch(model, image)
    if candidate.export_type == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda image: session.run(["anomaly_map"], {"input": image.numpy()})[0]
    import openvino

    config = {"INFERENCE_NUM_THREADS": threads} | ({"INFERENCE_PRECISION_HINT": "f32"} if candidate.float32 else {})
    compiled = openvino.Core().compile_model(path, "CPU", config)
    return lambda image: compiled(image.numpy())["anomaly_map"]


@torch.inference_mode()
def _in_torch(model: DPCLIP, image: Tensor) -> np.ndarray:
    return model(image).anomaly_map.numpy()


if __name__ == "__main__":
    run(export)
