"""`--model.region.ignore`: what lies there changes nothing, by whatever the model judges, and it stays with the checkpoint."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from PIL import Image
from tests.arguments import make_dpclip
from tests.data.golden.make_golden import GOLDEN

from anomalib_dpclip.app.predictor import Predictor
from anomalib_dpclip.metrics import PixelMetric, auroc, count_pixels
from anomalib_dpclip.post_processing.calibration_statistics import CalibrationStatistics
from anomalib_dpclip.scorers.memory_fit import build_memory

SIZE = (200, 150)


def draw(path, box=(20, 10, 90, 60), size=SIZE, background=0, foreground=255):
    picture = Image.new("L", size, background)
    if box:
        picture.paste(foreground, box)
    picture.save(path)
    return path


@pytest.fixture
def picture(tmp_path):
    return draw(tmp_path / "ignore.png")


def photos(count=3, seed=0):
    """Noise `(B, 3, H, W)` in [0, 1], soft enough to survive a resize."""
    noise = torch.rand(count, 3, SIZE[1] // 10, SIZE[0] // 10, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, SIZE[::-1], mode="bilinear")


def changed(images):
    """The same photos, with other things in the ignored box."""
    other = images.clone()
    other[..., 10:60, 20:90] = torch.rand(50, 70, generator=torch.Generator().manual_seed(9))
    return other


def model_with(picture, **arguments):
    defaults = {"weights": GOLDEN / "adapters-v1.safetensors", "class_name": "weave", "visualizer": False}
    return make_dpclip(**defaults | arguments, ignore=picture).eval()


@torch.no_grad()
def raw(model, images):
    return model.model.predict(model.pre_processor.transform(images), model.model.anchors)


@pytest.mark.parametrize(
    "arguments", [{}, {"tiles": 2}, {"weights": "clip", "backbone": "mini"}, {"domain": "medical"}], ids=str
)
def test_what_is_ignored_changes_nothing(picture, arguments):
    model, without = model_with(picture, **arguments), model_with(None, **arguments)
    one, other = raw(model, photos()), raw(model, changed(photos()))
    assert torch.equal(one.anomaly_map, other.anomaly_map)
    assert torch.equal(one.pred_score, other.pred_score)
    judged = model.region.scored
    assert (one.anomaly_map[:, ~judged] == 0).all()
    assert (one.anomaly_map[:, judged] > 0).all()
    assert 0.9 < judged.float().mean() / (1 - 70 * 50 / (SIZE[0] * SIZE[1])) <= 1
    assert not torch.equal(raw(without, photos()).anomaly_map, raw(without, changed(photos())).anomaly_map)


def test_a_memory_of_photos_ignores_it_too(picture):
    model = model_with(picture)
    seen = []
    for references in (photos(4, seed=1), changed(photos(4, seed=1))):
        model.set_references(references)
        memory = model.scorer.state.memory
        assert memory.tokens.shape[1] == 4 * int(model.region.tokens.sum())
        knots = model.post_processor.calibration.map_knots.clone()
        seen += [(memory.share, knots, raw(model, images).anomaly_map) for images in (photos(), changed(photos()))]
    for other in seen[1:]:
        assert all(torch.equal(*pair) for pair in zip(seen[0], other, strict=True))


def test_synthetic_defects_that_are_ignored_set_no_threshold(tmp_path):
    model = model_with(draw(tmp_path / "most.png", (0, 0, 200, 120)))
    prepared = model.pre_processor.resize_only(photos(4, seed=1))
    _, statistics = build_memory(model.model, prepared, model.pre_processor.normalize, model.model.anchors, 1000, 0)
    rows = statistics.images()
    assert (rows.label == 0).sum() == 4
    assert 0 < (rows.label == 1).sum() < 8
    assert (rows.map_min > 0).all()


def test_statistics_and_metrics_leave_it_out():
    maps, masks = torch.rand(2, 6, 6) * 0.8 + 0.1, torch.zeros(2, 6, 6, dtype=torch.int)
    masks[0, 1:3, 1:5] = 1
    judged = torch.ones(6, 6, dtype=torch.bool)
    judged[:, :3] = False
    expected = count_pixels(maps[..., 3:], masks[..., 3:])
    found = count_pixels(maps, masks, judged)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert masks.sum() == 8  # the ground truth is left as it is
    statistics = CalibrationStatistics(judged=judged)
    statistics.update(maps, torch.zeros(2), torch.tensor([1, 0]), masks)
    assert all(torch.equal(*pair) for pair in zip(statistics.pixels.compute(), expected, strict=True))
    torch.testing.assert_close(statistics.images().map_min, maps[..., 3:].amin((1, 2)))
    metric = PixelMetric("pixel_AUROC", auroc)
    metric.histogram.judged = judged
    metric.update(SimpleNamespace(anomaly_map=maps, gt_mask=masks))
    assert float(metric.compute()) == pytest.approx(auroc(expected))


def test_it_stays_with_the_checkpoint(picture, tmp_path, caplog):
    model, plain = model_with(picture), model_with(None)
    assert "ignore" not in model.hparams
    state = model.state_dict()
    plain.load_state_dict(state)
    assert torch.equal(plain.region.scored, model.region.scored)
    assert plain.region.photo_size.tolist() == list(SIZE)
    plain.load_state_dict(model_with(None).state_dict())  # one without it
    assert plain.region is None
    other = model_with(draw(tmp_path / "other.png", (100, 80, 190, 140)))
    kept = other.region.scored.clone()
    assert "calibrate" not in caplog.text
    other.load_state_dict(state)  # what was named comes first
    assert torch.equal(other.region.scored, kept)
    assert "set without this --model.region.ignore: calibrate with `anomalib validate`" in caplog.text


def test_photos_of_another_size_are_named(picture, tmp_path):
    model = model_with(picture)
    Image.new("RGB", (200, 100)).save(tmp_path / "small.png")
    message = r"small\.png is 200x100, and the picture of what to ignore is 200x150"
    batch = ImageBatch(image=torch.zeros(1, 3, 140, 140), image_path=[str(tmp_path / "small.png")])
    with pytest.raises(ValueError, match=message):
        model.test_step(batch, 0)
    with pytest.raises(ValueError, match=message):
        Predictor(model).predict(tmp_path / "small.png")
    with pytest.raises(ValueError, match="photo 1 of the target is 200x100, and"):
        model.set_references([torch.zeros(3, 150, 200), torch.zeros(3, 100, 200)])


@pytest.mark.parametrize(
    ("drawn", "message"),
    [
        ({"box": None, "background": 255}, r"--model.region.ignore .*ignore\.png: it leaves nothing to judge"),
        ({"box": None}, r"--model.region.ignore .*ignore\.png: it is black all over"),
    ],
)
def test_pictures_that_say_nothing(tmp_path, drawn, message):
    with pytest.raises(ValueError, match=message):
        model_with(draw(tmp_path / "ignore.png", **drawn))


def test_a_picture_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match=r"no such image file: .*gone\.png"):
        model_with(tmp_path / "gone.png")
    (tmp_path / "bad.png").write_bytes(b"bad")
    with pytest.raises(ValueError, match=r"cannot read image .*bad\.png"):
        model_with(tmp_path / "bad.png")


def test_a_resized_pixel_is_judged_only_if_it_is_of_judged_ones_alone(tmp_path):
    """On photos larger than the input, what the resize mixes in from the box is nowhere."""
    size = (700, 700)
    model = model_with(draw(tmp_path / "large.png", (301, 301, 333, 352), size))
    images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    other = images.clone()
    other[..., 301:352, 301:333] = 1
    resized = [model.pre_processor.resize_only(each) for each in (images, other)]
    judged = model.region.scored
    assert torch.equal(resized[0][..., judged], resized[1][..., judged])
    assert np.count_nonzero(~judged) < 1.5 * (32 / 5 + 4) * (51 / 5 + 4)
