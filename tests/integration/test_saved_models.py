"""One model, many ways to it: every argument that predictions depend on travels with the file, or is asked for by name."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from PIL import Image
from tests.arguments import make_dpclip
from tests.integration.exported import needs_openvino, run_file
from tests.spotted import soft_photo

from anomalib_dpclip import Photos, load_adapters, save_adapters
from anomalib_dpclip.app.app_command import page_model
from anomalib_dpclip.app.predictor import Predictor
from anomalib_dpclip.cli import main
from anomalib_dpclip.data.results.rows import RESULTS_JSON
from anomalib_dpclip.model.from_file import model_from_file
from anomalib_dpclip.scorers.references import image_tensor

COMMON = {
    "class_name": "weave",
    "image_mean": [0.5, 0.4, 0.45],
    "image_std": [0.25, 0.3, 0.27],
    "adapter_layers": [1],
    "tap_layers": [2, 5],
    "adapter_weight": 0.2,
    "projector_activation": True,
    "grn_pooling": "none",
    "detection": "class_token",
    "normal_states": ["{}", "{} without defect"],
    "abnormal_states": ["damaged {}", "{} with defect"],
    "templates": ["a photo of the {}."],
    "image_size": 126,
}
KINDS = {
    "tiles": {"tiles": 2, "domain": "medical"},
    "good photos": {"memory_backbone": "efficientnet_lite0", "text_weight": 0.5, "memory_tokens": 200, "layers": [0.4, 0.6]},
    "plain": {"domain": "industrial"},
}
"""Every argument of predictions at another value than its default, as far as they go together."""


def make(kind, **arguments):
    return make_dpclip(backbone="mini", visualizer=False, evaluator=False, **COMMON | KINDS[kind] | arguments)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three photos, one of them with a spot; good ones; and a picture of what is ignored."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(3):
        soft_photo(folder / "new" / f"{seed}.png", seed, (40, 60) if seed == 2 else None)
        soft_photo(folder / "good" / f"{seed}.png", 10 + seed)
    picture = Image.new("L", (140, 140))
    picture.paste(255, (0, 0, 30, 20))
    picture.save(folder / "ignore.png")
    return folder


def images(photos):
    return torch.stack([image_tensor(path) for path in sorted((photos / "new").iterdir())])


def engine_in(folder):
    return Engine(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=folder)


def fresh(**arguments):
    return make_dpclip(backbone="mini", visualizer=False, evaluator=False, **arguments)


@pytest.fixture(scope="module", params=KINDS)
def saved(request, photos, make_target, tmp_path_factory):
    """A checkpoint with thresholds that a validation has set, what its model says of the photos, and the thresholds."""
    folder, kind = tmp_path_factory.mktemp("saved"), request.param
    model = make(kind, ignore=photos / "ignore.png", min_area=7, false_alarm_rate=0.2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.05)
    model.adopt_adapters("by hand")
    model.provenance = replace(model.provenance, learned_from=["by hand"])
    if kind == "good photos":
        model.set_references(sorted((photos / "good").iterdir()))
    engine, target = engine_in(folder), make_target()
    target.step = 16  # other images' thresholds may be steep enough to show how a resize rounds
    engine.validate(model=model, datamodule=target)
    engine.trainer.save_checkpoint(folder / "model.ckpt")
    return folder / "model.ckpt", answer(model, photos), model.post_processor.calibration.thresholds


@pytest.fixture(scope="module")
def adapters(photos, tmp_path_factory):
    """Adapters with thresholds of their own, and what their model says."""
    model = make("tiles")
    model.adopt_adapters("by hand")
    carried = model.post_processor.auxiliary_calibration
    carried.map_knots.copy_(torch.tensor([0, 0.3, 0.45, 0.7, 1]))
    carried.score_knots.copy_(torch.tensor([0, 0.3, 0.45, 0.7, 1]))
    carried.is_set.fill_(True)
    model.adopt_adapters("by hand")
    path = save_adapters(model, tmp_path_factory.mktemp("adapters") / "adapters.safetensors")
    return path, answer(model, photos)


@torch.no_grad()
def answer(model, photos):
    found = model.eval()(images(photos))
    return {"score": found.pred_score, "map": found.anomaly_map}


def assert_same(found, expected, atol=5e-4):
    assert expected["score"].unique().numel() == 3, "there is something to compare"
    for name, value in found.items():
        same_shape = torch.as_tensor(np.asarray(value)).float().view_as(expected[name])
        torch.testing.assert_close(same_shape, expected[name], atol=atol, rtol=0)


def predicted(model, photos, folder, **arguments):
    batches = engine_in(folder).predict(model=model, datamodule=Photos(photos / "new", num_workers=0), **arguments)
    return {"score": torch.cat([each.pred_score for each in batches]), "map": torch.cat([each.anomaly_map for each in batches])}


def assert_the_command_and_the_page_say_the_same(path, photos, folder, expected, min_area):
    command = ["predict", str(photos / "new"), "--weights", str(path), "--pictures", "false"]
    main([*command, "--output", str(folder), "--num_workers", "0"])
    rows = json.loads((folder / RESULTS_JSON).read_text())
    assert_same({"score": [row["score"] for row in rows]}, expected)
    assert all(region["area"] >= min_area for row in rows for region in row["regions"])
    page = Predictor(page_model(str(path)))
    assert page.model.min_area == min_area
    for judge in (lambda photo: page.predict(photo).score, page.score):
        assert_same({"score": [judge(photo) for photo in sorted((photos / "new").iterdir())]}, expected)


def test_a_checkpoint_loaded(saved, photos, tmp_path):
    checkpoint, expected, thresholds = saved
    model = model_from_file(checkpoint)
    assert_same(answer(model, photos), expected)
    assert model.min_area == 7
    assert model.post_processor.calibration.thresholds == thresholds
    assert model.post_processor.calibration.false_alarm_rate == 0.2
    assert_the_command_and_the_page_say_the_same(checkpoint, photos, tmp_path, expected, min_area=7)


def test_a_checkpoint_as_ckpt_path(saved, photos, tmp_path):
    checkpoint, expected, _ = saved
    model = fresh()
    assert_same(predicted(model, photos, tmp_path, ckpt_path=checkpoint), expected)
    assert model.min_area == 7
    model, folders = fresh(), {"normal_dir": "good", "normal_test_dir": "new"}
    target = Folder(name="new", root=photos, **folders, val_split_mode="none", num_workers=0)
    engine_in(tmp_path).test(model=model, datamodule=target, ckpt_path=checkpoint)
    assert_same(answer(model, photos), expected)


@needs_openvino
def test_a_second_network_in_exported_files(photos, tmp_path):
    """Beginnings of both networks, which torch's exporter takes a few seconds for; OpenVINO's file is made of an ONNX file."""
    small = {"adapter_layers": [0], "tap_layers": [1], "layers": [0.4], "memory_tokens": 200}
    model = fresh(class_name="weave", memory_backbone="efficientnet_lite0", **small)
    model.adopt_adapters("by hand")
    model.set_references(sorted((photos / "good").iterdir()))
    expected = answer(model, photos)
    outputs = run_file(model.to_openvino(tmp_path, input_size=(140, 140)), images(photos))
    # Pillow's fixed-point weights round a pixel the other way now and then, which features of the second network show.
    assert_same({"score": outputs["pred_score"], "map": outputs["anomaly_map"]}, expected, 5e-3)
    torch_file = torch.load(model.to_torch(tmp_path), weights_only=False)["model"]
    assert_same(answer(torch_file, photos), expected, 5e-3)


def test_adapters_as_weights(adapters, photos, tmp_path):
    path, expected = adapters
    model = make_dpclip(weights=path, visualizer=False)
    assert_same(answer(model, photos), expected)
    assert_same(predicted(make_dpclip(weights=path, visualizer=False), photos, tmp_path), expected)
    assert_same(answer(model_from_file(path), photos), expected)
    again = save_adapters(model, tmp_path / "again.safetensors")
    assert_same(answer(make_dpclip(weights=again, visualizer=False), photos), expected)
    assert_the_command_and_the_page_say_the_same(path, photos, tmp_path, expected, min_area=0)


def test_adapters_are_loaded_into_the_same_model_or_not_at_all(adapters, photos):
    path, expected = adapters
    model = make("tiles")
    load_adapters(model, path)
    assert_same(answer(model, photos), expected)
    for name, value in {"image_size": 140, "tiles": 1, "templates": ["{}"], "tap_layers": [3]}.items():
        with pytest.raises(ValueError, match=name):
            load_adapters(make("tiles", **{name: value}), path)
