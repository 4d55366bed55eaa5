"""Thresholds of exported files, moved without a new export and run by the runtimes themselves, against the model."""

import shutil

import numpy as np
import pytest
import torch
from anomalib.data.utils import read_image
from tests.arguments import make_dpclip
from tests.integration.exported import needs_onnx, needs_openvino, raw_predictions, run_onnx, run_openvino

from anomalib_dpclip import save_adapters
from anomalib_dpclip.adapter_files.command import adapters as show_adapters
from anomalib_dpclip.cli import main
from anomalib_dpclip.deploy.threshold_command import read_exported, threshold
from anomalib_dpclip.post_processing.calibration_statistics import CalibrationStatistics
from anomalib_dpclip.post_processing.conformal import false_alarm_threshold

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def images(surfaces_root):
    """Twelve weaves, half of them damaged."""
    paths = [sorted((surfaces_root / "weave" / "test").glob(f"{kind}/*.png"))[:6] for kind in ("good", "hole")]
    return torch.stack([read_image(path, as_tensor=True) for kind in paths for path in kind])


@pytest.fixture(scope="module")
def model(images):
    """Small and untrained, but calibrated: thresholds do not care what was learned."""
    model = make_dpclip(backbone="mini", adapter_layers=[0], tap_layers=[1, 2], class_name="weave").eval()
    raw = raw_predictions(model, images)
    statistics = CalibrationStatistics("Surfaces/weave")
    statistics.update(raw.anomaly_map, raw.pred_score, torch.tensor([0] * 6 + [1] * 6), None)
    model.post_processor.calibration.set_from(statistics, "industrial")
    return model


def raw_scores(model, images):
    return model.post_processor.raw_score(raw_predictions(model, images), model.post_processor.calibration.scale)


@pytest.fixture(scope="module", params=[pytest.param("onnx", marks=needs_onnx), pytest.param("openvino", marks=needs_openvino)])
def exported(request, model, tmp_path_factory):
    """An exported file, and what runs it."""
    root = tmp_path_factory.mktemp(request.param)
    if request.param == "onnx":
        return model.to_onnx(root, input_size=(140, 140)), run_onnx
    return model.to_openvino(root, input_size=(140, 140)), run_openvino


@pytest.fixture
def file(exported, tmp_path):
    """A copy of the file to write to, and what runs it."""
    path, run = exported
    shutil.copytree(path.parent, tmp_path / "copy")
    return tmp_path / "copy" / path.name, run


def shown(capsys):
    """Printed values by their names."""
    return {line[:16].rstrip(): line[17:] for line in capsys.readouterr().out.splitlines()}


def test_a_file_says_what_it_is(file, model, tmp_path, capsys):
    path, _ = file
    before = {each.name: each.read_bytes() for each in path.parent.iterdir()}
    threshold(path)
    said = shown(capsys)
    image, pixel, threshold_basis, _ = model.post_processor.calibration.thresholds
    assert said["class"] == "weave"
    assert said["backbone"] == "mini, CLIP weights: come with the package"
    assert said["thresholds"] == f"image {image:.4f}, pixel {pixel:.4f} (raw)"
    assert (
        said["basis"]
        == threshold_basis
        == "the best F1 score of 6 normal and 6 anomalous images of Surfaces/weave; no guarantee for new images"
    )
    assert {each.name: each.read_bytes() for each in path.parent.iterdir()} == before
    # The adapters are those of an adapter file, whatever it is called.
    show_adapters(save_adapters(model, tmp_path / "a.safetensors"))
    assert shown(capsys)["adapters"].partition("digest ")[2] == said["adapters"].partition(",")[0].removeprefix("digest ")


def test_the_raw_score_comes_and_goes(file, model, images):
    path, run = file
    names = ["anomaly_map", "pred_label", "pred_mask", "pred_score"]
    first = run(path, images)
    assert sorted(first) == names  # anomalib's OpenVINOInferencer refuses more
    threshold(path, raw_score=True)
    outputs = run(path, images)
    assert sorted(outputs) == [*names, "raw_score"]
    np.testing.assert_allclose(outputs["raw_score"], raw_scores(model, images), atol=TOLERANCE)
    threshold(path, raw_score=True)
    threshold(path, raw_score=False)
    again = run(path, images)
    assert sorted(again) == names
    np.testing.assert_array_equal(again["pred_score"], first["pred_score"])


def test_thresholds_move_and_come_back(file, model, images):
    path, run = file
    before = read_exported(path).scales
    raw, maps = raw_scores(model, images), raw_predictions(model, images).anomaly_map
    # Between images, so that rounding decides nothing; once beyond all that was seen.
    image, pixel = raw.sort().values[3:5].mean().item(), maps.amax((1, 2)).sort().values[8:10].mean().item()
    threshold(path, image=image, pixel=pixel, raw_score=True)
    outputs = run(path, images)
    np.testing.assert_array_equal(outputs["pred_label"], (raw > image).numpy())
    clear = (maps - pixel).abs() > TOLERANCE
    np.testing.assert_array_equal(outputs["pred_mask"][clear], (maps > pixel).numpy()[clear])
    assert outputs["pred_label"].sum() == 8
    assert outputs["pred_mask"].any(axis=(1, 2)).sum() == 3
    np.testing.assert_array_equal(outputs["pred_score"] > 0.5, outputs["pred_label"])
    np.testing.assert_allclose(outputs["raw_score"], raw, atol=TOLERANCE)
    assert (
        read_exported(path).metadata.classes[0].threshold_basis
        == "the image and pixel threshold was set by hand; no guarantee for new images"
    )

    threshold(path, image=raw.max().item() + 0.1)
    beyond = run(path, images)
    assert not beyond["pred_label"].any()
    np.testing.assert_array_equal(beyond["pred_mask"], outputs["pred_mask"])  # it stays
    known = model.post_processor.calibration.thresholds
    threshold(path, image=known.image, pixel=known.pixel)
    np.testing.assert_allclose(read_exported(path).scales, before, atol=1e-6)


def test_a_score_at_the_threshold_is_normal(file, images):
    """Each image's own raw score as threshold, in the file's own arithmetic; a little below it, it is anomalous."""
    path, run = file
    threshold(path, raw_score=True)
    for number, raw in list(enumerate(run(path, images)["raw_score"].tolist()))[::4]:
        threshold(path, image=raw)
        assert not run(path, images)["pred_label"][number]
        threshold(path, image=raw - 1e-5)
        assert run(path, images)["pred_label"][number]


def test_from_normal_photos(file, model, surfaces_root, tmp_path, capsys):
    path, _ = file
    photos = tmp_path / "normal"
    photos.mkdir()
    paths = sorted((surfaces_root / "weave" / "test" / "good").iterdir())[20:39]
    for each in paths:
        shutil.copy(each, photos)
    pictures = torch.stack([read_image(each, as_tensor=True) for each in paths])
    raw, peaks = raw_scores(model, pictures), raw_predictions(model, pictures).anomaly_map.amax((1, 2))
    main(["threshold", str(path), "--from", str(photos), "--rate", "0.1"])
    said = shown(capsys)
    assert "probability of at most 10 %" in said["basis"]
    assert said["basis"].endswith("from 19 normal images of normal")
    scale = read_exported(path).scales[0]
    assert scale[11] == pytest.approx(false_alarm_threshold(raw, 0.1), abs=TOLERANCE)
    assert scale[6] == pytest.approx(false_alarm_threshold(peaks, 0.1), abs=TOLERANCE)
    # The 18th of 19 is the threshold: one exceeds it.
    run = read_exported(path).runner()
    assert sum(run(picture[None].numpy(), 0)["pred_label"].item() for picture in pictures) == 1

    threshold(path, from_=photos, rate=0.01)
    said = capsys.readouterr().out
    assert "a false-alarm rate of 1 % takes 99 normal images, there are 19: the strictest threshold is set" in said
    assert "probability of at most 5 %" in said


def test_what_cannot_be_done_leaves_the_file_as_it_is(file, tmp_path):
    path, _ = file
    before = {each.name: each.read_bytes() for each in path.parent.iterdir()}
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "broken.png").write_bytes(b"no image")
    for arguments, message in (
        ({"image": 99.0}, r"--image must lie between .* the lowest and highest raw score there is, not 99"),
        ({"image": float("nan")}, r"--image must lie between"),
        ({"pixel": 1.0}, r"--pixel must lie between 0 and 1, .*, not 1"),
        ({"rate": 0.1}, "go together"),
        ({"from_": tmp_path}, "go together"),
        ({"from_": tmp_path, "rate": 0.1, "image": 0.4}, "leave --image and --pixel out"),
        ({"from_": tmp_path / "bad", "rate": 1.0}, r"--rate must lie in \[0, 1\), not 1"),
        ({"from_": tmp_path / "bad", "rate": 0.1}, r"broken\.png"),
        ({"image": 0.5, "class_name": "screw"}, r"has no class 'screw': choose one with --class_name: 'weave'"),
    ):
        with pytest.raises(ValueError, match=message):
            threshold(path, **arguments)
    with pytest.raises(FileNotFoundError, match="no photos in"):
        threshold(path, from_=tmp_path / "empty", rate=0.1)
    with pytest.raises(FileNotFoundError, match="no folder"):
        threshold(path, from_=tmp_path / "absent", rate=0.1)
    assert {each.name: each.read_bytes() for each in path.parent.iterdir()} == before


def test_a_damaged_file_is_named(file):
    path, _ = file
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=rf"{path.name} is no (ONNX|OpenVINO) file that can be read"):
        threshold(path)
