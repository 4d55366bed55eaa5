"""Exported files through anomalib's command line, run by the runtimes themselves, against the model they come from."""

import gc
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from anomalib.cli.cli import AnomalibCLI
from anomalib.data.utils import read_image
from anomalib.deploy import CompressionType
from tests.arguments import make_dpclip
from tests.data.golden.make_golden import GOLDEN
from tests.integration.exported import Outputs, needs_onnx, needs_openvino, predicted, run_onnx, run_openvino
from torch import Tensor
from torch.nn import functional

from anomalib_dpclip import Surfaces
from anomalib_dpclip.deploy.threshold_command import read_exported
from anomalib_dpclip.model.from_file import model_from_file

CHECKPOINT, ADAPTERS = GOLDEN / "checkpoint-v1.ckpt", GOLDEN / "adapters-v1.safetensors"
TOLERANCE = 1e-3
SIDE = 140
needs_nncf = pytest.mark.skipif(find_spec("nncf") is None, reason="needs nncf, of the extra 'openvino'")


@pytest.fixture(scope="module")
def model():
    return model_from_file(CHECKPOINT, visualizer=False).eval()


@pytest.fixture(scope="module")
def images(surfaces_root) -> Tensor:
    """Six weaves ``(6, 3, 140, 140)`` in [0, 1], half of them damaged."""
    paths = [sorted((surfaces_root / "weave" / "test").glob(f"{kind}/*.png")) for kind in ("good", "hole")]
    return torch.stack([read_image(path, as_tensor=True) for kind in paths for path in kind[3:6]])


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """``anomalib export`` with some arguments; the file."""

    def run(export_type: str, *arguments: str):
        gc.collect()  # torch's exporter leaves a subclass of the same name behind, which the command line would find too
        root = tmp_path_factory.mktemp(export_type)
        AnomalibCLI(
            args=[
                *("export", "--model", "DPCLIP", "--model.backbone", "mini"),
                *("--export_type", export_type, "--export_root", str(root)),
                *arguments,
            ]
        )
        suffix = {"torch": "pt", "onnx": "onnx", "openvino": "xml"}[export_type]
        return root / "weights" / export_type / f"model.{suffix}"

    return run


@pytest.fixture(scope="module")
def onnx_file(export):
    return export("onnx", "--ckpt_path", str(CHECKPOINT))


@pytest.fixture(scope="module")
def openvino_file(export):
    return export("openvino", "--ckpt_path", str(CHECKPOINT))


@pytest.fixture(scope="module")
def torch_file(model, tmp_path_factory):
    return model.to_torch(tmp_path_factory.mktemp("torch"))


RUNTIMES = [
    pytest.param("onnx_file", run_onnx, marks=needs_onnx, id="onnxruntime"),
    pytest.param("openvino_file", run_openvino, marks=needs_openvino, id="openvino"),
]


def assert_same(actual: Outputs, expected: Outputs, tolerance: float = TOLERANCE) -> None:
    for values, decisions in (("pred_score", "pred_label"), ("anomaly_map", "pred_mask")):
        np.testing.assert_allclose(actual[values], expected[values], atol=tolerance, rtol=0)
        clear = np.abs(expected[values] - 0.5) > tolerance
        np.testing.assert_array_equal(actual[decisions][clear], expected[decisions][clear])
        assert actual[decisions].dtype == bool


def test_the_images_tell_files_apart(model, images):
    """Scores, maps and decisions differ between and within images: agreement on them means something."""
    outputs = predicted(model, images)
    assert np.ptp(outputs["pred_score"]) > 100 * TOLERANCE
    assert np.ptp(outputs["anomaly_map"]) > 100 * TOLERANCE
    for decisions in ("pred_label", "pred_mask"):
        assert set(np.unique(outputs[decisions])) == {False, True}


@pytest.mark.parametrize(("file", "run"), RUNTIMES)
@pytest.mark.parametrize(("count", "size"), [(1, (140, 140)), (6, (140, 140)), (2, (400, 250))], ids=str)
def test_same_answers_on_any_batch_and_size(request, model, images, file, run, count, size):
    batch = functional.interpolate(images[-count:], size, mode="bicubic", antialias=True).clamp(0, 1)
    assert_same(run(request.getfixturevalue(file), batch), predicted(model, batch))


def test_weights_alone_are_enough(export, images):
    """Adapters, and a class named on the command line: the adapters' own calibration goes into the file."""
    path = export("torch", "--model.weights", str(ADAPTERS), "--model.class_name", "red brick")
    expected = model_from_file(ADAPTERS, class_name="red brick").eval()
    assert expected.post_processor.calibration.is_set
    outputs = torch.load(path, weights_only=False)["model"](images)
    assert_same({name: value.numpy() for name, value in outputs._asdict().items()}, predicted(expected, images))


@needs_openvino
@pytest.mark.parametrize(
    ("compression", "bytes_a_weight", "drift"),
    [
        pytest.param(CompressionType.FP16, 2, 0.005, id="fp16"),
        pytest.param(CompressionType.INT8, 1, 0.03, id="int8", marks=needs_nncf),
    ],
)
def test_compressed_files_are_small_and_close(images, tmp_path, compression, bytes_a_weight, drift):
    import openvino

    # Two of the six layers hold every kind of weight, and take a third of the time.
    small = make_dpclip(backbone="mini", adapter_layers=[0], tap_layers=[1, 2], class_name="brick").eval()
    path = small.to_openvino(tmp_path, input_size=(SIDE, SIDE), compression_type=compression)
    constants = [node for node in openvino.Core().read_model(path).get_ops() if node.get_type_name() == "Constant"]
    weights = sum(np.prod(node.get_output_shape(0), dtype=int) for node in constants)
    assert path.with_suffix(".bin").stat().st_size == pytest.approx(bytes_a_weight * weights, rel=0.2)
    file = read_exported(path)
    assert file.input_size == (SIDE, SIDE)
    np.testing.assert_array_equal(file.scales[0], small.post_processor.calibration.scale.packed())  # not rounded

    outputs, expected = run_openvino(path, images), predicted(small, images)
    for name in ("pred_score", "anomaly_map"):
        assert np.abs(outputs[name] - expected[name]).max() < drift * np.ptp(expected[name])


@needs_onnx
def test_tiles_are_a_loop_in_the_file(images, tmp_path):
    """Torch's answers on one image and on several, and the tower only once."""
    small = make_dpclip(backbone="mini", adapter_layers=[0], tap_layers=[1], class_name="brick", tiles=3).eval()
    path = small.to_onnx(tmp_path)
    assert numbers_in(path) < 2 * sum(tensor.numel() for tensor in small.model.state_dict().values())
    large = functional.interpolate(images[:2], scale_factor=3)
    for batch in (large[:1], large):
        found, expected = run_onnx(path, batch), predicted(small, batch)
        for name in ("pred_score", "anomaly_map"):
            np.testing.assert_allclose(found[name], expected[name], atol=1e-5, rtol=0)


def numbers_in(path) -> int:
    """How many weights a file has room for."""
    if path.suffix == ".onnx":
        import onnx

        return sum(int(np.prod(tensor.dims, dtype=int)) for tensor in onnx.load(path).graph.initializer)
    return path.with_suffix(".bin" if path.suffix == ".xml" else path.suffix).stat().st_size // 4


@pytest.mark.parametrize(
    "file",
    ["torch_file", pytest.param("onnx_file", marks=needs_onnx), pytest.param("openvino_file", marks=needs_openvino)],
)
def test_the_text_tower_stays_behind(request, model, file):
    model.target.anchors_for("brick")
    vision = sum(tensor.numel() for tensor in model.model.state_dict().values())
    clip = sum(parameter.numel() for parameter in model.target.anchors_for._text.clip.parameters())
    text = clip - sum(parameter.numel() for parameter in model.target.anchors_for._text.clip.visual.parameters())
    numbers = numbers_in(request.getfixturevalue(file))
    assert 0.9 * vision < numbers < vision + text / 2


def test_exporting_leaves_the_model_as_it_was(surfaces_root, tmp_path):
    model = make_dpclip(backbone="mini", class_name="brick", auxiliary=Surfaces(root=surfaces_root, category="brick"))
    evaluator, learned = model.evaluator, sum(parameter.requires_grad for parameter in model.parameters())
    path = model.train().to_torch(tmp_path)
    assert model.evaluator is evaluator
    assert model.training
    assert sum(parameter.requires_grad for parameter in model.parameters()) == learned > 0
    exported = torch.load(path, weights_only=False)["model"]
    assert exported.evaluator is None
    assert not any(parameter.requires_grad for parameter in exported.parameters())
    assert exported.auxiliary is None


@pytest.mark.parametrize("method", ["to_torch", "to_onnx", "to_openvino"])
def test_a_model_that_knows_no_class_is_refused(tmp_path, method):
    with pytest.raises(ValueError, match=r"--model\.weights.*--model\.class_name"):
        getattr(make_dpclip(backbone="mini"), method)(tmp_path)
    assert not list(tmp_path.rglob("*.*"))
