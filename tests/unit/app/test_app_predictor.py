import tracemalloc
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from tests.arguments import make_dpclip
from tests.data.golden.make_golden import GOLDEN
from tests.spotted import soft_photo

from anomalib_dpclip import save_adapters
from anomalib_dpclip.app.answers import Answers, regions_table
from anomalib_dpclip.app.app_command import app, suggested_names
from anomalib_dpclip.app.correct_command import write_corrected
from anomalib_dpclip.app.predictor import SHOWN_SIZE, UNCALIBRATED, Prediction, Predictor
from anomalib_dpclip.data.images import ImageReadError
from anomalib_dpclip.data.regions import Region
from anomalib_dpclip.model.from_file import model_from_file
from anomalib_dpclip.visualization.heat_map import color_range


@pytest.fixture(scope="module")
def predictor():
    return Predictor(make_dpclip(backbone="mini", weights="clip"))


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    noise = np.random.default_rng(0).integers(0, 256, (30, 45, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((180, 120)).save(path)
    return path


def test_words_that_the_mini_backbone_does_not_know_are_said(predictor, photo):
    with pytest.warns(UserWarning, match="does not know the word"):
        remarks = predictor.predict(photo, "red transistor of germanium").remarks
    assert "**The mini backbone does not know** transistor, germanium: to it that is any object." in remarks
    assert not any("does not know" in each for each in predictor.predict(photo, "red brick").remarks)
    nameless = [predictor.predict(photo, name).score for name in (None, "", "  ", "object")]
    assert len(set(nameless)) == 1


@pytest.mark.parametrize("size", [(1281, 1), (1, 1281), (1, 1)])
def test_a_photo_as_thin_as_a_line_has_an_answer(predictor, tmp_path, size):
    Image.new("RGB", size, (90, 90, 90)).save(tmp_path / "line.png")
    prediction = predictor.predict(tmp_path / "line.png")
    assert prediction.photo.size == tuple(max(1, round(side * SHOWN_SIZE / max(size))) for side in size)
    assert prediction.heat_map(0.5).size == prediction.photo.size == prediction.heat.shape[::-1]
    assert f"**{size[0]}x{size[1]} pixels are too few to judge:** the answer means nothing." in prediction.remarks


def test_what_cannot_be_judged_is_refused_before_it_is_decoded(predictor, photo, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    Image.new("1", (10_000, 5001)).save(tmp_path / "large.png")
    tracemalloc.start()
    with pytest.raises(ImageReadError, match=r"large\.png: it has 50,010,000 pixels, 50,000,000 are the most"):
        predictor.predict(tmp_path / "large.png")
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
    with pytest.raises(ImageReadError, match=r"broken\.png"):
        predictor.predict(tmp_path / "broken.png")
    answer = Answers(predictor).look([str(photo)], "x " * 500_000, None, 0.5)
    assert (answer.judged, answer.photo, answer.heat_map, answer.heat_maps) == ([], None, None, ())
    assert answer.verdict.startswith("### No result\nthe name of what the photo shows has 999999 characters, 200 are the most")


def test_what_visitors_type_is_forgotten(predictor, photo, monkeypatch):
    monkeypatch.setattr("anomalib_dpclip.method.prompting.CLASSES_KEPT", 3)
    cache = predictor.model.target.anchors_for
    cache._anchors.clear()
    first = cache("weave").clone()
    for name in ("wood", "brick", "mesh", "red mesh"):
        cache(name)
    assert list(cache._anchors) == ["brick", "mesh", "red mesh"]
    assert torch.equal(cache("weave"), first)


@pytest.fixture
def launched(monkeypatch):
    """Run `app`, and give what its page is laid out of."""
    monkeypatch.setattr("anomalib_dpclip.app.app_command.find_spec", lambda name: name)
    page = Mock()
    monkeypatch.setattr("anomalib_dpclip.app.page.page", page)

    def launch(weights):
        app(weights=str(weights))
        return page.call_args.args

    return launch


def test_the_page_takes_backbone_architecture_and_prompts_from_the_file(launched, tmp_path):
    trained = {"adapter_layers": [0], "grn_pooling": "none", "image_size": 126, "templates": ["a picture of {}."]}
    model = make_dpclip(backbone="mini", **trained)
    path = save_adapters(model, tmp_path / "mini.safetensors")
    predictor, names, title, checkpoint = launched(path)
    assert checkpoint is None  # nothing to correct: the file has no memory of photos
    assert title == "Model: mini.safetensors on mini"
    assert "brushed metal" in names
    assert predictor.model.model.grn_pooling == "none"
    assert predictor.model.image_size == (126, 126)
    assert torch.equal(predictor.model.target.anchors_for("brick"), model.target.anchors_for("brick"))


def test_the_page_of_a_checkpoint_with_photos_suggests_what_they_show(launched, tmp_path):
    model = model_from_file(GOLDEN / "checkpoint-v1.ckpt", visualizer=False)
    model.set_references([soft_photo(tmp_path / "good.png", 1)])
    write_corrected(model, GOLDEN / "checkpoint-v1.ckpt", tmp_path / "model.ckpt")
    *_, checkpoint = launched(GOLDEN / "checkpoint-v1.ckpt")
    assert checkpoint is None
    _, names, _, checkpoint = launched(tmp_path / "model.ckpt")
    assert names[:2] == ["weave", "object"]
    assert checkpoint == tmp_path / "model.ckpt"


def test_colors_of_an_uncalibrated_model_span_the_photo_s_own_range(photo):
    model = make_dpclip(backbone="mini", weights="clip")
    prediction = Predictor(model).predict(photo, "weave")
    assert prediction.color_range == (prediction.anomaly_map.min(), prediction.anomaly_map.max())
    assert UNCALIBRATED in prediction.remarks
    model.post_processor.calibration.is_set.fill_(True)
    model.post_processor.calibration.belongs_to("text", is_default=True)
    prediction = Predictor(model).predict(photo, "weave")
    assert prediction.color_range == (0, 1)
    assert UNCALIBRATED not in prediction.remarks


def test_heat_map_has_the_photo_where_normal_and_an_outline_and_a_box_around_the_rest():
    heat = np.zeros((200, 200), np.float32)
    heat[50:150, 50:150] = 1
    prediction = Prediction(Image.new("RGB", (200, 200), (100, 100, 100)), heat, score=0.7)
    picture = np.asarray(prediction.heat_map(0.5)).astype(int)
    assert (picture[:30] == 100).all()  # above the score of the region
    assert (picture[49, 49:151] == 0).all()  # the box, black without and white within
    assert (picture[50:52, 50:150] == 255).all()
    # Turbo ends in the red (122, 4, 3), which covers three quarters.
    assert np.abs(picture[52:148, 52:148] - [116.5, 28, 27.25]).max() <= 1
    assert not (np.asarray(prediction.heat_map(1)) == 255).all(axis=-1).any(), "nothing exceeds the threshold"
    assert prediction.is_anomalous(0.69)
    assert not prediction.is_anomalous(0.7)
    assert color_range(np.full((140, 140), 0.5, np.float32), is_calibrated=False) == (0, 1), "a flat map has colours too"


def test_regions_are_in_pixels_of_the_photo_and_follow_the_threshold():
    heat = np.zeros((20, 20), np.float32)
    heat[2:4, 2:4], heat[10:20, 10:20] = 0.6, 0.9
    prediction = Prediction(Image.new("RGB", (20, 20)), heat, score=0.7, size=(40, 80), min_area=33)
    assert prediction.regions(0.7) == [Region(20, 40, 40, 80, pytest.approx(0.9), 800)]
    assert prediction.regions(0.5) == prediction.regions(0.7)  # the other is 32 pixels, a speck
    assert len(replace(prediction, min_area=32).regions(0.5)) == 2
    assert regions_table(prediction.regions(0.7)).splitlines()[-1] == "| 0.900 | 800 | 20, 40 to 40, 80 |"
    assert regions_table([]) == "No region exceeds the threshold."
    assert regions_table([], 100) == "No region of at least 100 pixels exceeds the threshold."
    assert regions_table(12 * prediction.regions(0.7)).endswith("and 2 more")


def test_suggestions_are_what_adapters_and_backbone_know():
    assert suggested_names(["Surfaces/brick", "Surfaces/dots"], "mini")[:3] == ["object", "brick", "dots"]
    assert "brushed metal" in suggested_names([], "mini")
    names = suggested_names(["VisA/cashew nut"], "ViT-L-14-336")
    assert names[:2] == ["object", "cashew nut"]
    assert {"gray carpet", "wheel-shaped fryum snack", "blue rectangular metal plate with a notch on one side"} <= set(names)
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "--weights FILE"),
        ({"weights": "clip", "port": 0}, ValueError, "port must lie"),
        ({"weights": "clip", "max_megabytes": 0}, ValueError, "max_megabytes must be"),
        ({"weights": "nothing.pth"}, FileNotFoundError, "no adapter file"),
        ({"weights": "mini.safetensors", "pretrained": "random"}, ValueError, "Set --backbone, --pretrained and --quick_gelu"),
    ],
)
def test_what_does_not_fit_is_named_with_the_page_s_own_options(monkeypatch, tmp_path, arguments, error, message):
    monkeypatch.setattr("anomalib_dpclip.app.app_command.find_spec", lambda name: name)
    monkeypatch.chdir(tmp_path)
    save_adapters(make_dpclip(backbone="mini"), tmp_path / "mini.safetensors")
    with pytest.raises(error, match=message):
        app(**arguments)
    monkeypatch.setattr("anomalib_dpclip.app.app_command.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'anomalib-dpclip\[app\]'"):
        app(weights="clip", backbone="mini")
