"""Exported files, run by the runtimes themselves, against the model they come from; and thresholds moved in them."""

import gc
import shutil

import numpy as np
import pytest
import torch
from anomalib.cli.cli import AnomalibCLI
from anomalib.deploy import CompressionType, OpenVINOInferencer, TorchInferencer
from PIL import Image
from tests.arguments import make_dpclip
from tests.data.golden.make_golden import GOLDEN
from tests.integration.exported import (
    F32,
    KINDS,
    assert_same_answers,
    needs_openvino,
    numbers_in,
    predicted,
    raw_predictions,
    run_file,
    upright,
    weaves,
)
from torch import Tensor
from torch.nn import functional

from anomalib_dpclip import Surfaces, save_adapters
from anomalib_dpclip.adapter_files.command import adapters as show_adapters
from anomalib_dpclip.cli import main
from anomalib_dpclip.deploy.threshold_command import read_exported, threshold
from anomalib_dpclip.model.from_file import model_from_file
from anomalib_dpclip.post_processing.conformal import false_alarm_threshold

CHECKPOINT, ADAPTERS = GOLDEN / "checkpoint-v1.ckpt", GOLDEN / "adapters-v1.safetensors"
SUFFIX = {"torch": "pt", "onnx": "onnx", "openvino": "xml"}


@pytest.fixture(scope="module")
def model():
    return model_from_file(CHECKPOINT, visualizer=False).eval()


@pytest.fixture(scope="module")
def images(surfaces_root) -> Tensor:
    return weaves(surfaces_root, 6)


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """``anomalib export`` with some arguments; the file."""

    def run(kind: str, *arguments: str):
        gc.collect()  # torch's exporter leaves a subclass of the same name behind, which the command line would find too
        root = tmp_path_factory.mktemp(kind)
        model = ("--model", "DPCLIP", "--model.backbone", "mini")
        AnomalibCLI(args=["export", *model, "--export_type", kind, "--export_root", str(root), *arguments])
        return root / "weights" / kind / f"model.{SUFFIX[kind]}"

    return run


@pytest.fixture(scope="module")
def exported(export):
    """The checkpoint's file of a kind, made on first use."""
    files = {}

    def file(kind: str):
        if kind not in files:
            files[kind] = export(kind, "--ckpt_path", str(CHECKPOINT))
        return files[kind]

    return file


def test_the_images_tell_files_apart(model, images):
    """Scores, maps and decisions differ between and within images: agreement on them means something."""
    outputs = predicted(model, images)
    for values, decisions in (("pred_score", "pred_label"), ("anomaly_map", "pred_mask")):
        assert np.ptp(outputs[values]) > 0.1
        assert set(np.unique(outputs[decisions])) == {False, True}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "size"), [(1, (140, 140)), (6, (140, 140)), (2, (400, 250))], ids=str)
def test_same_answers_on_any_batch_and_size(exported, model, images, kind, count, size):
    batch = functional.interpolate(images[-count:], size, mode="bicubic", antialias=True).clamp(0, 1)
    assert_same_answers(run_file(exported(kind), batch), predicted(model, batch))


@pytest.mark.parametrize("kind", ["torch", pytest.param("openvino", marks=needs_openvino)])
def test_anomalib_s_inferencers(exported, kind, model, surfaces_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # they write where they are started
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    path = exported(kind)
    inferencer = TorchInferencer(path, "cpu") if kind == "torch" else OpenVINOInferencer(path, device="CPU", config=F32)
    weave = Image.open(surfaces_root / "weave" / "test" / "hole" / "003.png")
    for size in ((140, 140), (1, 1), (300, 7), (200, 333), (640, 480)):
        weave.resize(size).save(tmp_path / "photo.png")
        found, expected = inferencer.predict(tmp_path / "photo.png"), predicted(model, upright(tmp_path / "photo.png"))
        assert found.pred_score.item() == pytest.approx(expected["pred_score"].item(), abs=1e-3)
        assert found.pred_label.item() == expected["pred_label"].item()


def test_weights_alone_are_enough(export, images):
    """Adapters, and a class named on the command line: the adapters' own calibration goes into the file."""
    path = export("torch", "--model.weights", str(ADAPTERS), "--model.class_name", "red brick")
    expected = model_from_file(ADAPTERS, class_name="red brick").eval()
    assert expected.post_processor.calibration.is_set
    outputs = torch.load(path, weights_only=False)["model"](images)
    assert_same_answers({name: value.numpy() for name, value in outputs._asdict().items()}, predicted(expected, images))


@needs_openvino
def test_a_file_of_half_precision_is_small_and_close(images, tmp_path):
    import openvino

    # Two of the six layers hold every kind of weight, and take a third of the time.
    small = make_dpclip(backbone="mini", adapter_layers=[0], tap_layers=[1], class_name="brick").eval()
    path = small.to_openvino(tmp_path, input_size=(140, 140), compression_type=CompressionType.FP16)
    constants = [node for node in openvino.Core().read_model(path).get_ops() if node.get_type_name() == "Constant"]
    weights = sum(np.prod(node.get_output_shape(0), dtype=int) for node in constants)
    assert path.with_suffix(".bin").stat().st_size == pytest.approx(2 * weights, rel=0.2)
    file = read_exported(path)
    assert file.input_size == (140, 140)
    np.testing.assert_array_equal(file.scales[0], small.post_processor.calibration.scale.packed())  # not rounded

    outputs, expected = run_file(path, images), predicted(small, images)
    for name in ("pred_score", "anomaly_map"):
        assert np.abs(outputs[name] - expected[name]).max() < 0.005 * np.ptp(expected[name])


@pytest.mark.parametrize("kind", ["torch", *KINDS])
def test_the_text_tower_stays_behind(exported, model, kind):
    path = exported(kind)
    model.target.anchors_for("brick")
    clip = model.target.anchors_for._text.clip
    vision = sum(tensor.numel() for tensor in model.model.state_dict().values())
    text = sum(value.numel() for name, value in clip.named_parameters() if not name.startswith("visual."))
    assert 0.9 * vision < numbers_in(path) < vision + text / 2


def test_exporting_leaves_the_model_as_it_was(surfaces_root, tmp_path):
    model = make_dpclip(backbone="mini", class_name="brick", auxiliary=Surfaces(root=surfaces_root, category="brick"))
    evaluator, learned = model.evaluator, sum(parameter.requires_grad for parameter in model.parameters())
    path = model.train().to_torch(tmp_path)
    assert model.evaluator is evaluator
    assert model.training
    assert sum(parameter.requires_grad for parameter in model.parameters()) == learned > 0
    exported = torch.load(path, weights_only=False)["model"]
    assert exported.evaluator is exported.auxiliary is None
    assert not any(parameter.requires_grad for parameter in exported.parameters())


@pytest.mark.parametrize("method", ["to_torch", "to_onnx", "to_openvino"])
def test_a_model_that_knows_no_class_is_refused(tmp_path, method):
    with pytest.raises(ValueError, match=r"--model\.weights.*--model\.class_name"):
        getattr(make_dpclip(backbone="mini"), method)(tmp_path)
    assert not list(tmp_path.rglob("*.*"))


def test_what_a_file_of_several_classes_cannot_be(tmp_path, surfaces_root):
    several = {"backbone": "mini", "export_classes": ["weave", "metal plate"]}
    with pytest.raises(ValueError, match="a torch file has one class; export to onnx or openvino"):
        make_dpclip(**several).to_torch(tmp_path)
    model = make_dpclip(**several, few_shot_source=str(surfaces_root / "weave" / "train" / "good"))
    for method in (model.to_onnx, model.to_openvino):
        with pytest.raises(ValueError, match="photos show what one target should look like; export a file for each"):
            method(tmp_path)
    assert not list(tmp_path.rglob("*.*"))


@pytest.fixture(params=KINDS)
def file(request, exported, tmp_path):
    """A copy of the file to write to."""
    path = exported(request.param)
    shutil.copytree(path.parent, tmp_path / "copy")
    return tmp_path / "copy" / path.name


def contents(file):
    return {each.name: each.read_bytes() for each in file.parent.iterdir()}


def raw_scores(model, images):
    return model.post_processor.raw_score(raw_predictions(model, images), model.post_processor.calibration.scale)


def shown(capsys):
    """Printed values by their names."""
    return {line[:16].rstrip(): line[17:] for line in capsys.readouterr().out.splitlines()}


def test_a_file_says_what_it_is(file, model, tmp_path, capsys):
    before = contents(file)
    threshold(file)
    said = shown(capsys)
    image, pixel, threshold_basis, _ = model.post_processor.calibration.thresholds
    assert said["class"] == "weave"
    assert said["backbone"] == "mini, CLIP weights: come with the package"
    assert said["thresholds"] == f"image {image:.4f}, pixel {pixel:.4f} (raw)"
    assert said["basis"] == threshold_basis
    assert contents(file) == before
    # The adapters are those of an adapter file, whatever it is called.
    show_adapters(save_adapters(model, tmp_path / "a.safetensors"))
    assert shown(capsys)["adapters"].partition("digest ")[2] == said["adapters"].partition(",")[0].removeprefix("digest ")


def test_thresholds_move_and_come_back_and_the_raw_score_comes_and_goes(file, model, images):
    scales, names = read_exported(file).scales, ["anomaly_map", "pred_label", "pred_mask", "pred_score"]
    first = run_file(file, images)
    assert sorted(first) == names  # anomalib's OpenVINOInferencer refuses more
    raw, maps = raw_scores(model, images), raw_predictions(model, images).anomaly_map
    # Between images, so that rounding decides nothing.
    image, pixel = raw.sort().values[3:5].mean().item(), maps.amax((1, 2)).sort().values[8:10].mean().item()
    threshold(file, image=image, pixel=pixel, raw_score=True)
    outputs = run_file(file, images)
    assert sorted(outputs) == [*names, "raw_score"]
    np.testing.assert_allclose(outputs["raw_score"], raw, atol=1e-3)
    np.testing.assert_array_equal(outputs["pred_label"], (raw > image).numpy())
    np.testing.assert_array_equal(outputs["pred_score"] > 0.5, outputs["pred_label"])
    assert outputs["pred_label"].sum() == 8
    assert outputs["pred_mask"].any(axis=(1, 2)).sum() == 3
    basis = read_exported(file).metadata.classes[0].threshold_basis
    assert basis == "the image and pixel threshold was set by hand; no guarantee for new images"

    # Each image's own raw score as threshold, in the file's own arithmetic, is normal; a little below it, it is anomalous.
    for number, own in list(enumerate(outputs["raw_score"].tolist()))[::4]:
        threshold(file, image=own)
        assert not run_file(file, images)["pred_label"][number]
        threshold(file, image=own - 1e-5)
        assert run_file(file, images)["pred_label"][number]

    known = model.post_processor.calibration.thresholds
    threshold(file, image=known.image, pixel=known.pixel, raw_score=False)
    np.testing.assert_allclose(read_exported(file).scales, scales, atol=1e-6)
    again = run_file(file, images)
    assert sorted(again) == names
    np.testing.assert_allclose(again["pred_score"], first["pred_score"], atol=1e-5)


def test_thresholds_from_normal_photos(file, model, surfaces_root, tmp_path, capsys):
    paths = sorted((surfaces_root / "weave" / "test" / "good").iterdir())[20:39]
    (tmp_path / "normal").mkdir()
    for each in paths:
        shutil.copy(each, tmp_path / "normal")
    pictures = torch.cat([upright(each) for each in paths])
    raw, peaks = raw_scores(model, pictures), raw_predictions(model, pictures).anomaly_map.amax((1, 2))
    main(["threshold", str(file), "--from", str(tmp_path / "normal"), "--rate", "0.1"])
    basis = shown(capsys)["basis"]
    assert "probability of at most 10 %" in basis
    assert basis.endswith("from 19 normal images of normal")
    scale = read_exported(file).scales[0]
    assert scale[11] == pytest.approx(false_alarm_threshold(raw, 0.1), abs=1e-3)
    assert scale[6] == pytest.approx(false_alarm_threshold(peaks, 0.1), abs=1e-3)
    assert run_file(file, pictures)["pred_label"].sum() == 1  # the 18th of 19 is the threshold

    threshold(file, from_=tmp_path / "normal", rate=0.01)
    said = capsys.readouterr().out
    assert "a false-alarm rate of 1 % takes 99 normal images, there are 19: the strictest threshold is set" in said
    assert "probability of at most 5 %" in said


def test_what_cannot_be_done_leaves_the_file_as_it_is(file, tmp_path):
    before = contents(file)
    for name in ("empty", "bad"):
        (tmp_path / name).mkdir()
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
        ({"from_": tmp_path / "empty", "rate": 0.1}, "no photos in"),
        ({"from_": tmp_path / "absent", "rate": 0.1}, "no folder"),
        ({"image": 0.5, "class_name": "screw"}, r"has no class 'screw': choose one with --class_name: 'weave'"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            threshold(file, **arguments)
    assert contents(file) == before
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=rf"{file.name} is no (ONNX|OpenVINO) file that can be read"):
        threshold(file)
