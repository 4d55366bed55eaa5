"""Scoring by the text alone: the paper's scores, in tiles, and without what is ignored."""

import pytest
import torch
from PIL import Image
from tests.tiny_clip import tiny_model
from torch.nn import functional

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
def test_predictions_in_tiles_do_not_depend_on_the_batch():
    model, images = tiny_model(), torch.randn(3, 3, 48, 48)
    scorer = TextScorer(model, Region(), tiles=2)
    anchors = functional.normalize(torch.randn(3, 8, 2), dim=1)
    together = scorer.score(images, anchors)
    assert together.anomaly_map.shape == (3, 48, 48)
    for index in range(3):
        alone = scorer.score(images[index : index + 1], anchors[index])
        torch.testing.assert_close(together.anomaly_map[index], alone.anomaly_map[0])
        torch.testing.assert_close(together.pred_score[index], alone.pred_score[0])


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
