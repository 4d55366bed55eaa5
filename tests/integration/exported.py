"""The runtimes of exported files, and what the model itself answers, for tests."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from anomalib.data import InferenceBatch
from torch import Tensor
from torchvision.transforms.v2.functional import to_dtype, to_image

from anomalib_dpclip import DPCLIP
from anomalib_dpclip.data.images import read_image

F32 = {"INFERENCE_PRECISION_HINT": "f32"}  # by itself OpenVINO computes in bf16 on processors that can

needs_onnx = pytest.mark.skipif(not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))), reason="needs the extra 'onnx'")
needs_openvino = pytest.mark.skipif(
    not all(map(find_spec, ("openvino", "onnx", "onnxscript"))), reason="needs the extra 'openvino'"
)
KINDS = [pytest.param("onnx", marks=needs_onnx), pytest.param("openvino", marks=needs_openvino)]

Outputs = dict[str, np.ndarray]


def upright(path) -> Tensor:
    """A photo as the package reads it, ``(1, 3, H, W)`` in [0, 1]."""
    return to_dtype(to_image(read_image(path)), torch.float32, scale=True)[None]


def weaves(surfaces_root, count: int) -> Tensor:
    """So many normal and so many damaged weaves ``(2 * count, 3, 140, 140)`` in [0, 1]."""
    paths = [sorted((surfaces_root / "weave" / "test" / kind).iterdir())[:count] for kind in ("good", "hole")]
    return torch.cat([upright(path) for kind in paths for path in kind])


def run_onnx(path, images: Tensor, **inputs: np.ndarray) -> Outputs:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {session.get_inputs()[0].name: images.numpy(), **inputs}), strict=True))


def run_openvino(path, images: Tensor, **inputs: np.ndarray) -> Outputs:
    import openvino

    results = openvino.Core().compile_model(path, "CPU", F32)({0: images.numpy(), **inputs})
    return {output.get_any_name(): results[output] for output in results}


def run_file(path, images: Tensor, **inputs: np.ndarray) -> Outputs:
    """What the runtime answers that the file is for."""
    return (run_onnx if path.suffix == ".onnx" else run_openvino)(path, images, **inputs)


@torch.no_grad()
def raw_predictions(model: DPCLIP, images: Tensor) -> InferenceBatch:
    """What the model answers in a test run before post-processing: images are resized by its own pre-processor."""
    return model.scorer.score(model.pre_processor.transform(images), model.model.anchors)


@torch.no_grad()
def predicted(model: DPCLIP, images: Tensor) -> Outputs:
    """What the model answers in a test run."""
    outputs = model.post_processor(raw_predictions(model, images))
    return {name: value.numpy() for name, value in outputs._asdict().items()}


def numbers_in(path) -> int:
    """How many weights a file has room for."""
    if path.suffix == ".onnx":
        import onnx

        return sum(int(np.prod(tensor.dims, dtype=int)) for tensor in onnx.load(path).graph.initializer)
    return path.with_suffix(".bin" if path.suffix == ".xml" else path.suffix).stat().st_size // 4


def assert_same_answers(found: Outputs, expected: Outputs, tolerance: float = 1e-3) -> None:
    """Scores and maps are close, and decisions the same but where rounding decides."""
    for values, decisions in (("pred_score", "pred_label"), ("anomaly_map", "pred_mask")):
        np.testing.assert_allclose(found[values], expected[values], atol=tolerance, rtol=0)
        clear = np.abs(expected[values] - 0.5) > tolerance
        np.testing.assert_array_equal(found[decisions][clear], expected[decisions][clear])
        assert found[decisions].dtype == bool
