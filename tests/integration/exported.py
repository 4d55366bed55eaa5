"""The runtimes of exported files, for tests."""

from importlib.util import find_spec

import numpy as np
import pytest
from torch import Tensor

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
