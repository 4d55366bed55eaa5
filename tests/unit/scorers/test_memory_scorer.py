"""Distances to a memory of good images: by which tokens, what is kept of it, and what it is made with."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from tests.tiny_clip import tiny_model
from tests.tiny_scorers import soft_images, tiny_comparison, tiny_fit
from torch.nn import functional

from anomalib_dpclip.clip.feature_tower import FeatureTower
from anomalib_dpclip.scorers import memory_scorer
from anomalib_dpclip.scorers.memory_fit import DEFECTS, damage, thinned
from anomalib_dpclip.scorers.memory_scorer import TokenMemory, nearest_distance, sparse_numbers, spread_of
from anomalib_dpclip.scorers.token_source import OwnTokens, TowerTokens


def nearest_neighbours(tokens, known):
    return NearestNeighbors(n_neighbors=1).fit(known).kneighbors(tokens)[0][:, 0]


@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_distances_are_those_of_scikit_learn(monkeypatch, chunk):
    monkeypatch.setattr(memory_scorer, "CHUNK", chunk)
    rng = np.random.default_rng(0)
    tokens, known = rng.normal(size=(50, 16)) / 4, rng.normal(size=(40, 16)) / 4
    tokens[:5] = known[:5] + 1e-6  # where the expanded square would cancel
    found = nearest_distance(torch.tensor(tokens).float(), torch.tensor(known).float())
    assert np.abs(found.numpy() - nearest_neighbours(tokens, known)).max() < 1e-5


def test_layers_and_images_are_independent():
    rng = np.random.default_rng(1)
    tokens, known = (rng.normal(size=(2, 3, 5, 4)), rng.normal(size=(2, 11, 4)))
    known = known.astype(np.float16).astype(float)  # as a memory keeps them
    memory = TokenMemory(torch.tensor(known).float().unbind(), torch.tensor([2.0, 0.5]))
    assert [layer.dtype for layer in memory.layers] == [torch.float16] * 2
    found = memory(torch.tensor(tokens).float().unbind())
    for layer, spread in ((0, 2.0), (1, 0.5)):
        for image in range(3):
            expected = nearest_neighbours(tokens[layer, image], known[layer]) / spread
            assert np.abs(found[layer][image].numpy() - expected).max() < 1e-5


def test_the_spread_is_the_mean_distance_from_the_mean():
    tokens = np.random.default_rng(2).normal(size=(1, 6, 5), scale=5)
    expected = np.linalg.norm(tokens[0] - tokens[0].mean(0), axis=1).mean()
    assert spread_of(torch.tensor(tokens)).item() == pytest.approx(expected, rel=1e-5)
    assert spread_of(torch.ones(4, 3)) > 0, "good images that are all alike have no spread"


def test_of_a_fine_grid_every_second_row_and_column_is_kept():
    assert torch.equal(sparse_numbers(torch.arange(64), (8, 8)), torch.arange(64))
    sparse = sparse_numbers(torch.arange(24 * 32), (24, 32))
    assert sparse[:17].tolist() == [*range(0, 32, 2), 64]
    assert len(sparse) == 12 * 16
    odd = torch.tensor([33, 35])  # of an odd row: all that there is
    assert torch.equal(sparse_numbers(odd, (24, 32)), odd)


@pytest.fixture(scope="module")
def comparison():
    return tiny_comparison()


@pytest.mark.parametrize("text_weight", [0, 1])
@torch.no_grad()
def test_an_image_is_scored_alike_in_any_batch(comparison, text_weight):
    scorer = tiny_fit(comparison).fit(soft_images(4), text_weight)
    images, anchors = soft_images(3, seed=1).float() / 255, comparison.text.model.anchors
    together = scorer.score(images, anchors)
    assert together.anomaly_map.shape == (3, 24, 24)
    for values in together.anomaly_map, together.pred_score:
        assert 0 < values.min() < values.max() < 1
    for index in range(3):
        alone = scorer.score(images[index : index + 1], anchors)
        torch.testing.assert_close(alone.anomaly_map[0], together.anomaly_map[index], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone.pred_score[0], together.pred_score[index], atol=1e-5, rtol=0)


@torch.no_grad()
def test_what_no_good_image_shows_is_hot_and_what_joins_them_is_not(comparison):
    images, anchors = soft_images(2, seed=1), comparison.text.model.anchors
    images[0, :, 8:16, 8:16] = torch.tensor([255, 0, 255]).view(3, 1, 1)
    maker = tiny_fit(comparison)
    scorer = maker.fit(soft_images(4), 0)
    before = scorer.score(images.float() / 255, anchors)
    defect = before.anomaly_map[0, 8:16, 8:16]
    assert defect.mean() > before.anomaly_map[1].max()
    extended = maker.extend(scorer.state, images[:1])
    after = extended.score(images.float() / 255, anchors)
    assert int(extended.state.memory.photos) == 5
    assert after.anomaly_map[0, 8:16, 8:16].max() < defect.max()
    assert after.pred_score[0] < before.pred_score[0]
    assert torch.equal(extended.state.scores, scorer.state.scores)  # thresholds are of the good images of before


@pytest.mark.parametrize(("count", "limit"), [(1, 1), (1, 1000), (2, 1)])
@torch.no_grad()
def test_a_memory_of_few_photos_and_of_one_token_is_finite(comparison, count, limit):
    scorer = tiny_fit(comparison, limit=limit).fit(soft_images(count), 1)
    assert all(len(layer) == min(limit, 36 * count) for layer in scorer.state.memory.layers)
    assert all(value.isfinite().all() for value in scorer.state.state_dict().values())
    prediction = scorer.score(soft_images(2, seed=1).float() / 255, comparison.text.model.anchors)
    assert prediction.anomaly_map.isfinite().all() & prediction.pred_score.isfinite().all()


def test_synthetic_defects_change_what_their_masks_show_alone():
    images = soft_images(3)
    damaged, masks = damage(images, seed=5)
    assert (damaged.shape, damaged.dtype) == ((DEFECTS * 3, 3, 24, 24), torch.uint8)
    assert masks.any(dim=(1, 2)).all()
    untouched = ~masks[3:].unsqueeze(1).expand_as(images)
    assert torch.equal(damaged[3:][untouched], images[untouched])
    assert torch.equal(damage(images, seed=5)[0], damaged)
    assert not torch.equal(damage(images, seed=6)[0], damaged)


def test_thinned_tokens_are_some_of_them():
    tokens = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    chosen = thinned(tokens, 20, seed=1)
    assert chosen.shape == (20, 8)
    assert (chosen[:, None] == tokens).all(-1).any(1).all()
    assert torch.equal(thinned(tokens, 20, seed=1), chosen)
    assert thinned(tokens, 300, seed=1) is tokens


@pytest.mark.parametrize("count", [1, 4])
@torch.no_grad()
def test_scores_are_kept_of_good_images_by_the_others_and_of_damaged_ones(count):
    scores = tiny_fit(tiny_comparison()).fit(soft_images(count), 0).state.scores
    good, damaged = (scores[scores[:, 3] == label] for label in (0, 1))
    assert len(good) == count
    assert 0 < len(damaged) <= DEFECTS * count
    assert damaged[:, 1].mean() > good[:, 1].mean()
    assert (scores[:, 0] <= scores[:, 1]).all()


@torch.no_grad()
def test_a_fit_is_repeatable_and_leaves_the_global_random_state_alone():
    before, maker = torch.get_rng_state(), tiny_fit(tiny_comparison(), limit=20)
    first, second = (maker.fit(soft_images(3), 1).state.state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@torch.no_grad()
def test_the_backbone_s_tokens_without_what_all_of_an_image_share():
    model = tiny_model()
    evidence = model.evidence(torch.rand(2, 3, 24, 24), model.anchors)
    tokens = OwnTokens((6, 6), 4).tokens(torch.empty(0), evidence)
    assert [layer.shape for layer in tokens] == [(2, 36, 16)] * 4
    for layer in tokens:
        assert layer.mean(1).abs().max() < 1e-6
    with pytest.raises(ValueError, match="come with what the text says"):
        OwnTokens((6, 6), 4).tokens(torch.empty(0), None)


class Pyramid(torch.nn.Module):
    def forward(self, images):
        return [functional.avg_pool2d(images, side) for side in (2, 8)]


def test_feature_maps_are_read_in_two_ways():
    tower = FeatureTower(Pyramid(), (32, 32), [0.5] * 3, [0.25] * 3)
    source = TowerTokens(tower, torch.full((3, 1, 1), 0.2), torch.full((3, 1, 1), 0.1))
    assert source.grids == [(16, 16), (4, 4), (16, 16)]
    assert source.weights == [0.125, 0.125, 1]
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tokens = source.tokens((images - 0.2) / 0.1, None)
    fine, coarse = ((functional.avg_pool2d(images, side) - 0.5) / 0.25 for side in (2, 8))
    # Unit vectors: of a fine grid averaged over neighbours, zeros around it left out; a coarse one as it is.
    corner = fine[0, :, :2, :2].mean(dim=(1, 2))
    torch.testing.assert_close(tokens[0][0, 0], corner / corner.norm(), atol=1e-5, rtol=0)
    torch.testing.assert_close(tokens[1][0, 5], coarse[0, :, 1, 1] / coarse[0, :, 1, 1].norm(), atol=1e-5, rtol=0)
    # As they are, on the finest grid: the zeros around count.
    torch.testing.assert_close(tokens[2][0, 0, :3], fine[0, :, :2, :2].sum(dim=(1, 2)) / 9, atol=1e-5, rtol=0)
    assert tokens[2].shape == (1, 256, 6)
