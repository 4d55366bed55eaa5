"""Scoring by the text alone: the paper's scores, in tiles; what is ignored has no influence, here and elsewhere."""

from functools import partial

import pytest
import torch
from PIL import Image
from tests.tiny_clip import tiny_model
from torch.nn import functional

from anomalib_dpclip.method.anomaly_map import blur_grid
from anomalib_dpclip.pre_processing.pre_processor import CLIPPreProcessor
from anomalib_dpclip.scorers.region import Region
from anomalib_dpclip.scorers.text_scorer import TextScorer

IMAGES = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_it_is_the_paper_s_model():
    model = tiny_model()
    found, expected = TextScorer(model, Region()).score(IMAGES, model.anchors), model(IMAGES)
    assert torch.equal(found.anomaly_map, expected.anomaly_map)
    assert torch.equal(found.pred_score, expected.pred_score)


@pytest.mark.parametrize("tiles", [1, 2])
@pytest.mark.parametrize("domain", ["industrial", "medical"])
@torch.no_grad()
def test_what_is_ignored_changes_nothing(tmp_path, tiles, domain):
    side = 24 * tiles
    picture = Image.new("L", (side, side))
    picture.paste(255, (2, 2, 10, 9))
    picture.save(tmp_path / "ignore.png")
    model, region = tiny_model(domain=domain), Region()
    scorer = TextScorer(model, region, tiles)
    region.ignore(tmp_path / "ignore.png", scorer.image_size, scorer.grid, "bicubic")
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    other = images.clone()
    other[..., 2:9, 2:10] = 1
    one, two = (scorer.score(each, model.anchors) for each in (images, other))
    assert torch.equal(one.anomaly_map, two.anomaly_map)
    assert torch.equal(one.pred_score, two.pred_score)
    assert (one.anomaly_map[:, ~region.scored] == 0).all()
    assert (one.anomaly_map[:, region.scored] > 0).all()


@torch.no_grad()
def test_a_norm_over_the_batch_sees_no_two_tiles_of_an_image():
    model, counts = tiny_model(grn_pooling="batch"), []
    tap_tokens = model.tap_tokens
    model.tap_tokens = lambda images: (counts.append(len(images)), tap_tokens(images))[1]
    TextScorer(model, Region(), tiles=2).score(torch.randn(2, 3, 48, 48), model.anchors)
    assert counts == [2] * 9


@torch.no_grad()
def test_images_that_another_network_wants_larger_are_resized_for_the_backbone():
    model = tiny_model()
    scorer = TextScorer(model, Region(), image_size=(48, 48))
    images = functional.interpolate(IMAGES, (48, 48), mode="nearest")
    found = scorer.score(images, model.anchors)
    assert found.anomaly_map.shape == (3, 48, 48)
    resized = functional.interpolate(images, (24, 24), mode="bilinear", antialias=True)
    torch.testing.assert_close(found.pred_score, model(resized).pred_score)


def test_images_of_another_size_are_named():
    scorer = TextScorer(tiny_model(), Region(), tiles=2)
    with pytest.raises(ValueError, match=r"images are \(24, 24\), the model takes \(48, 48\): resize them, or"):
        scorer.score(IMAGES, torch.zeros(8, 2))


@pytest.fixture
def ignoring(tmp_path):
    """A region that ignores a box ``left, top, right, bottom`` of square photos, which are seen in a size."""

    def make(box, side=8, grid=4, background=0, size=None):
        region, picture = Region(), Image.new("L", (side, side), background)
        if box:
            picture.paste(255, box)
        picture.save(tmp_path / "ignore.png")
        region.ignore(tmp_path / "ignore.png", (size or side, size or side), (grid, grid), "bicubic")
        return region

    return make


BOX = (0, 0, 4, 3)
"""A token and a half high, two tokens wide."""


def test_tokens_are_scored_that_see_nothing_ignored(ignoring):
    expected = torch.ones(4, 4, dtype=torch.bool)
    expected[:2, :2] = False
    region = ignoring(BOX)
    assert torch.equal(region.tokens((4, 4)), expected)
    assert region.token_numbers((4, 4)).tolist() == [2, 3, 6, 7, *range(8, 16)]
    assert Region().tokens((4, 4)) is None
    assert Region().token_numbers((2, 2)).tolist() == [0, 1, 2, 3]


def test_ignored_pixels_get_the_mean_colour_of_the_others(ignoring):
    region, images = ignoring(BOX), torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    painted = region.paint_over(images)
    assert torch.equal(painted[..., region.scored], images[..., region.scored])
    torch.testing.assert_close(painted[1, 2, 0, 0], images[1, 2][region.scored].mean())
    images[..., ~region.scored] = 7
    assert torch.equal(region.paint_over(images), painted)


@pytest.mark.parametrize("domain", ["industrial", "medical"])
def test_smoothing_takes_scored_tokens_alone(ignoring, domain):
    region, blur = ignoring((0, 0, 10, 10), side=24, grid=12), partial(blur_grid, domain=domain)
    tokens = region.tokens((12, 12))
    values = torch.rand(2, 12, 12, generator=torch.Generator().manual_seed(0))
    smooth = region.smooth(values, blur)
    changed = values.clone()
    changed[:, ~tokens] = 100
    assert torch.equal(region.smooth(changed, blur), smooth)
    torch.testing.assert_close(smooth[:, 10:, 10:], blur(values)[:, 10:, 10:])  # far from it
    torch.testing.assert_close(region.smooth(torch.full((1, 12, 12), 0.3), blur), torch.full((1, 12, 12), 0.3))
    by_hand = (blur(values * tokens) / blur(tokens.float()[None]))[0, 5, 4]
    torch.testing.assert_close(smooth[0, 5, 4], by_hand)


def test_where_no_scored_token_is_near_the_mean_stands(ignoring):
    region = ignoring((0, 0, 19, 20), side=20, grid=20)
    values = torch.rand(1, 20, 20, generator=torch.Generator().manual_seed(0))
    smooth = region.smooth(values, lambda each: blur_grid(each, "industrial"))
    torch.testing.assert_close(smooth[0, 5, 0], values[0, :, 19].mean())


def test_a_resized_pixel_is_scored_only_if_it_is_of_scored_ones_alone(ignoring):
    """On photos larger than the input, what the resize mixes in from the box is nowhere."""
    resize = CLIPPreProcessor((140, 140)).resize_only
    region = ignoring((301, 301, 333, 352), side=700, grid=10, size=140)
    image = torch.rand(3, 700, 700, generator=torch.Generator().manual_seed(0))
    other = image.clone()
    other[..., 301:352, 301:333] = 1
    assert torch.equal(resize(image)[..., region.scored], resize(other)[..., region.scored])
    assert int((~region.scored).sum()) < 1.5 * (32 / 5 + 4) * (51 / 5 + 4)


def test_photos_of_another_size_are_named(ignoring, tmp_path):
    region = ignoring(BOX)
    region.require_size(8, 8, "a.png")
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png is 8x6, and the picture of what to ignore is 8x8: draw it on"):
        region.require_sizes([str(tmp_path / "a.png")])
    Region().require_sizes([str(tmp_path / "gone.png")])


@pytest.mark.parametrize(("background", "message"), [(255, "leaves nothing to score"), (0, "black all over")])
def test_pictures_that_say_nothing(ignoring, background, message):
    with pytest.raises(ValueError, match=rf"--model.region.ignore .*ignore\.png: it .*{message}"):
        ignoring(None, background=background)


def test_pictures_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match=r"no such image file.*gone.png"):
        Region().ignore(tmp_path / "gone.png", (8, 8), (4, 4), "bicubic")


def test_a_state_dict_of_any_size_finds_room(ignoring):
    stored, other = ignoring(BOX).state_dict(prefix="region."), Region()
    other.fit_to(stored, "region.")
    other.load_state_dict({name.removeprefix("region."): value for name, value in stored.items()})
    assert torch.equal(other.scored, stored["region.scored"])
    assert (other.hide(torch.ones(2, 8, 8)) == other.scored).all()
    other.fit_to({}, "region.")
    assert other.scored is None
