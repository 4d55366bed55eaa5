"""One file of several products: its answers are those of a file for each."""

import numpy as np
import pytest
import torch
from anomalib.data.utils import read_image
from tests.arguments import make_dpclip
from tests.integration.exported import needs_onnx, needs_openvino, predicted, run_onnx, run_openvino

from anomalib_dpclip.deploy.threshold_command import read_exported, threshold

CLASSES = ["weave", "metal plate"]


def small(**arguments):
    """Always the same adapters."""
    return make_dpclip(backbone="mini", adapter_layers=[0], tap_layers=[1, 2], **arguments).eval()


@pytest.fixture(scope="module")
def images(surfaces_root):
    paths = [sorted((surfaces_root / "weave" / "test").glob(f"{kind}/*.png"))[:2] for kind in ("good", "hole")]
    return torch.stack([read_image(path, as_tensor=True) for kind in paths for path in kind])


def number_of(number):
    return {"class": np.array([number])}


def assert_same(found, expected, tolerance):
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=tolerance)


@needs_onnx
def test_one_file_answers_as_the_model_for_each_class(images, tmp_path, capsys):
    model = small(export_classes=",".join(CLASSES))
    both, expected = model.to_onnx(tmp_path, input_size=(140, 140)), []
    for number, name in enumerate(CLASSES):
        model.target.set_class(name)
        outputs = predicted(model, images)
        expected.append({name: outputs[name] for name in ("pred_score", "anomaly_map")})
        assert_same(run_onnx(both, images, **number_of(number)), expected[number], 1e-4)
    assert np.abs(expected[0]["anomaly_map"] - expected[1]["anomaly_map"]).max() > 1e-3  # else nothing is shown
    assert_same(run_onnx(both, images), expected[0], 1e-4)  # by default the first

    # Each has thresholds of its own.
    before = read_exported(both).scales
    with pytest.raises(ValueError, match=r"has several classes: choose one with --class_name: 'weave', 'metal plate'"):
        threshold(both, image=0.4)
    threshold(both, image=0.9, class_name="metal plate")
    after = read_exported(both).scales
    np.testing.assert_array_equal(after[0], before[0])
    assert after[1][11] == pytest.approx(0.9)
    said = capsys.readouterr().out
    assert "class 0          weave" in said
    assert "class 1          metal plate" in said
    assert_same(run_onnx(both, images), expected[0], 1e-4)


@needs_openvino
def test_openvino_chooses_a_class_or_takes_the_first(images, tmp_path):
    model = small(export_classes=CLASSES)
    both = model.to_openvino(tmp_path, input_size=(140, 140))
    found = [run_openvino(both, images), *(run_openvino(both, images, **number_of(number)) for number in (0, 1))]
    for outputs, name in zip(found, [CLASSES[0], *CLASSES], strict=True):
        model.target.set_class(name)
        expected = predicted(model, images)
        for each in ("pred_score", "anomaly_map"):
            np.testing.assert_allclose(outputs[each], expected[each], atol=1e-4)
    assert np.abs(found[1]["anomaly_map"] - found[2]["anomaly_map"]).max() > 1e-3
    threshold(both, pixel=0.7, class_name="metal plate")
    assert_same(run_openvino(both, images), found[0], 1e-6)
    assert read_exported(both).runner()(images[:1].numpy(), 1)["anomaly_map"].max() < 0.5 < found[2]["anomaly_map"].max()


def test_what_a_file_of_several_classes_cannot_be(tmp_path, surfaces_root):
    with pytest.raises(ValueError, match="a torch file has one class; export to onnx or openvino"):
        small(export_classes=CLASSES).to_torch(tmp_path)
    model = small(export_classes=CLASSES, few_shot_source=str(surfaces_root / "weave" / "train" / "good"))
    for method in (model.to_onnx, model.to_openvino):
        with pytest.raises(ValueError, match="photos show what one target should look like; export a file for each"):
            method(tmp_path)
    assert not list(tmp_path.rglob("*.*"))
