"""INT8 arithmetic: what is quantised, on which photos, and that maps and metrics bear it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.deploy import CompressionType
from scipy.stats import spearmanr
from tests.arguments import make_dpclip
from tests.integration.exported import predicted, run_file

from anomalib_dpclip import Photos, Surfaces
from anomalib_dpclip.deploy.quantisation import CALIBRATION_IMAGES, normal_images

openvino = pytest.importorskip("openvino", reason="needs the extra 'openvino'")
pytest.importorskip("nncf", reason="needs nncf, of the extra 'openvino'")
pytest.importorskip("onnxscript", reason="needs the extra 'openvino'")


@pytest.fixture(scope="module")
def weave(surfaces_root):
    data = Surfaces(root=surfaces_root, category="weave")
    data.setup()
    return data


CLASSES = ("weave", "wood")
SMALL = {"backbone": "mini", "adapter_layers": [0], "tap_layers": [1, 2]}  # two of the six layers hold every kind of product


@pytest.fixture(scope="module")
def model():
    return make_dpclip(**SMALL, detection="class_token", export_classes=",".join(CLASSES)).eval()


@pytest.fixture(scope="module")
def quantised(model, weave, tmp_path_factory):
    """A file in 8 bits."""
    root = tmp_path_factory.mktemp("exported")
    return model.to_openvino(root, input_size=(140, 140), compression_type=CompressionType.INT8_PTQ, datamodule=weave)


def bytes_of_weights(model):
    """What a file of single precision takes at least."""
    return 4 * sum(value.numel() for value in model.model.state_dict().values())


def test_only_products_with_weights_are_quantised(quantised, model):
    """Two layers of four, an adapter, two projectors of maps, and what the class token goes through: four layers and a head."""
    graph = openvino.Core().read_model(quantised)
    users = {
        target.get_node().get_friendly_name(): target.get_node().get_type_name()
        for node in graph.get_ops()
        if node.get_type_name() == "FakeQuantize"
        for target in node.output(0).get_target_inputs()
    }
    assert set(users.values()) == {"MatMul"}
    assert quantised.with_suffix(".bin").stat().st_size < 0.4 * bytes_of_weights(model)


def test_maps_and_scores_of_each_class_bear_it(quantised, model, weave):
    images = torch.stack([torch.as_tensor(weave.test_data[index].image) for index in range(0, 160, 20)])
    for number, name in enumerate(CLASSES):
        model.target.set_class(name)
        exact = predicted(model, images)
        found = run_file(quantised, images, **{"class": np.array([number])})
        assert not np.array_equal(found["anomaly_map"], exact["anomaly_map"])
        assert spearmanr(found["anomaly_map"].ravel(), exact["anomaly_map"].ravel()).statistic > 0.97
        np.testing.assert_allclose(found["pred_score"], exact["pred_score"], atol=0.02)


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
    tiled = make_dpclip(**SMALL, class_name="weave", tiles=2).eval()
    path = tiled.to_openvino(tmp_path, input_size=(140, 140), compression_type=CompressionType.INT8)
    assert path.with_suffix(".bin").stat().st_size < 0.4 * bytes_of_weights(tiled)
    image = torch.as_tensor(weave.test_data[100].image)[None]
    exact, found = (answer["anomaly_map"] for answer in (predicted(tiled, image), run_file(path, image)))
    assert not np.array_equal(exact, found)
    assert np.abs(exact - found).max() < 0.03 * np.ptp(exact)


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
