"""The runtimes of exported files, and what the model itself answers, for tests."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from anomalib.data import InferenceBatch
from torch import Tensor

from anomalib_dpclip import DPCLIP

F32 = {"INFERENCE_PRECISION_HINT": "f32"}  # by itself OpenVINO computes in bf16 on processors that can

needs_onnx = pytest.mark.skipif(not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))), reason="needs the extra 'onnx'")
needs_openvino = pytest.mark.skipif(
    not all(map(find_spec, ("openvino", "onnx", "onnxscript"))), reason="needs the extra 'openvino'"
)

Outputs = dict[str, np.ndarray]


def run_onnx(path, images: Tensor, **inputs: np.ndarray) -> Outputs:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {session.get_inputs()[0].name: images.numpy(), **inputs}), strict=True))


def run_openvino(path, images: Tensor, **inputs: np.ndarray) -> Outputs:
    import openvino

    results = openvino.Core().compile_model(path, "CPU", F32)({0: images.numpy(), **inputs})
    return {output.get_any_name(): results[output] for output in results}


@torch.no_grad()
def raw_predictions(model: DPCLIP, images: Tensor) -> InferenceBatch:
    """What the model answers in a test run before post-processing: images are resized by its own pre-processor."""
    return model.scorer.score(model.pre_processor.transform(images), model.model.anchors)


@torch.no_grad()
def predicted(model: DPCLIP, images: Tensor) -> Outputs:
    """What the model answers in a test run."""
    outputs = model.post_processor(raw_predictions(model, images))
    return {name: value.numpy() for name, value in outputs._asdict().items()}
