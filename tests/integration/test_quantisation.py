"""INT8 arithmetic: what is quantised, on which photos, and that maps and metrics bear it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.deploy import CompressionType
from scipy.stats import spearmanr
from tests.arguments import make_dpclip
from tests.integration.exported import predicted

from anomalib_dpclip import Photos, Surfaces
from anomalib_dpclip.deploy.quantisation import CALIBRATION_IMAGES, normal_images, products_with_weights

openvino = pytest.importorskip("openvino", reason="needs the extra 'openvino'")
pytest.importorskip("nncf", reason="needs nncf, of the extra 'openvino'")
pytest.importorskip("onnxscript", reason="needs the extra 'openvino'")


@pytest.fixture(scope="module")
def weave(surfaces_root):
    data = Surfaces(root=surfaces_root, category="weave")
    data.setup()
    return data


@pytest.fixture(scope="module")
def model():
    """Two of the six layers hold every kind of product."""
    return make_dpclip(backbone="mini", adapter_layers=[0], tap_layers=[1, 2], class_name="weave", visualizer=False).eval()


@pytest.fixture(scope="module")
def files(model, weave, tmp_path_factory):
    root = tmp_path_factory.mktemp("exported")
    return {
        kind: model.to_openvino(root / str(kind), compression_type=kind, datamodule=weave)
        for kind in (None, CompressionType.INT8_PTQ)
    }


def outputs(path, images):
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled(images)["anomaly_map"]


def test_only_products_with_weights_are_quantised(files):
    """Two layers of four, an adapter, two projectors of maps and one of the score."""
    graph = openvino.Core().read_model(files[CompressionType.INT8_PTQ])
    users = {
        target.get_node().get_type_name()
        for node in graph.get_ops()
        if node.get_type_name() == "FakeQuantize"
        for target in node.output(0).get_target_inputs()
    }
    assert users == {"MatMul"}
    assert len(products_with_weights(openvino.Core().read_model(files[None]))) == 2 * 4 + 1 + 2 + 1
    sizes = {kind: path.with_suffix(".bin").stat().st_size for kind, path in files.items()}
    assert sizes[CompressionType.INT8_PTQ] < 0.4 * sizes[None]


def test_maps_keep_their_order(files, weave):
    images = np.stack([np.asarray(weave.test_data[index].image) for index in range(0, 160, 20)])
    exact, quantised = (outputs(path, images) for path in files.values())
    assert not np.array_equal(exact, quantised)
    assert spearmanr(exact.ravel(), quantised.ravel()).statistic > 0.97


def test_several_classes_bear_it_too(weave, tmp_path):
    small = {"backbone": "mini", "adapter_layers": [0], "tap_layers": [1, 2], "visualizer": False}
    model = make_dpclip(**small, detection="class_token", export_classes="weave,wood").eval()
    path = model.to_openvino(tmp_path, compression_type=CompressionType.INT8_PTQ, datamodule=weave)
    image = np.asarray(weave.test_data[100].image)[None]
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for number, name in enumerate(("weave", "wood")):
        model.target.set_class(name)
        exact = predicted(model, torch.from_numpy(image))
        found = compiled({0: image, "class": np.array([number])})
        assert spearmanr(found["anomaly_map"].ravel(), exact["anomaly_map"].ravel()).statistic > 0.97
        assert found["pred_score"].item() == pytest.approx(exact["pred_score"].item(), abs=0.02)


def test_calibration_images_are_normal_ones_of_the_training_split(weave):
    images = normal_images(weave)
    assert len(images) == min(CALIBRATION_IMAGES, int((weave.train_data.samples.label_index == 0).sum()))
    assert torch.equal(torch.from_numpy(images[0][0]), torch.as_tensor(weave.train_data[0].image))


def test_what_cannot_be_calibrated_says_so(weave, tmp_path):
    with pytest.raises(ValueError, match="name its data set with --data"):
        normal_images(None)
    none = weave.train_data.samples.assign(label_index=1)
    data = SimpleNamespace(prepare_data=lambda: None, setup=lambda _: None, train_data=SimpleNamespace(samples=none))
    with pytest.raises(ValueError, match="the data set has none: use INT8 or FP16"):
        normal_images(data)
    with pytest.raises(ValueError, match="Photos have no labels"):
        normal_images(Photos(tmp_path))


def test_tiles_have_their_weights_in_8_bits(weave, tmp_path):
    tiled = make_dpclip(backbone="mini", adapter_layers=[0], tap_layers=[1, 2], class_name="weave", tiles=2).eval()
    files = {kind: tiled.to_openvino(tmp_path / str(kind), compression_type=kind) for kind in (None, CompressionType.INT8)}
    sizes = {kind: path.with_suffix(".bin").stat().st_size for kind, path in files.items()}
    assert sizes[CompressionType.INT8] < 0.4 * sizes[None]
    image = np.asarray(weave.test_data[100].image)[None]
    exact, compressed = (outputs(path, image) for path in files.values())
    assert not np.array_equal(exact, compressed)
    assert np.abs(exact - compressed).max() < 0.03 * np.ptp(exact)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (CompressionType.INT8_PTQ, "cannot quantise a model with tiles=2: use INT8"),
        (CompressionType.INT8_ACQ, "INT8_ACQ is not offered for DPCLIP: use INT8_PTQ"),
    ],
)
def test_what_cannot_be_compressed_is_refused_before_anything_is_written(kind, message, tmp_path):
    """NNCF cannot build its graph of a file with a loop."""
    tiled = make_dpclip(backbone="mini", class_name="weave", tiles=2).eval()
    with pytest.raises(ValueError, match=message):
        tiled.to_openvino(tmp_path, compression_type=kind)
    assert not list(tmp_path.iterdir())
