"""Tiling: a large image is covered once, its tiles agree, and nothing shows where they meet."""

import numpy as np
import pytest
import torch
from anomalib.data.utils.tiler import Tiler
from tests.arguments import make_dpclip
from tests.tiny_clip import tiny_clip, tiny_model
from torch import nn
from torch.nn import functional

from anomalib_dpclip.data.surfaces.textures import render_surface
from anomalib_dpclip.scorers.region import Region
from anomalib_dpclip.scorers.text_scorer import TextScorer
from anomalib_dpclip.scorers.tiling import blend_weights, predict_tiled, stitching_matrix


def mean_of_patches(images, _anchors=None):
    """A model that sees each patch of 4 x 4 pixels by itself, and the image's brightest pixel."""
    return functional.avg_pool2d(images.mean(1), 4), images.amax((1, 2, 3))


def test_weights_by_hand():
    """Two tokens a tile: the window is (1/2, 1/2), tiles start at tokens 0, 1 and 2."""
    expected = torch.tensor([[1, 0.5, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0.5, 1]])
    torch.testing.assert_close(blend_weights(2, 2), expected)


@pytest.mark.parametrize(("length", "tiles"), [(10, 1), (6, 2), (37, 3), (3, 8)])
def test_every_token_is_covered_by_shares_that_sum_to_one(length, tiles):
    matrix = stitching_matrix(length, tiles)
    assert matrix.shape == (tiles * length, (2 * tiles - 1) * length)
    torch.testing.assert_close(matrix.sum(dim=1), torch.ones(tiles * length))
    assert ((matrix > 0).sum(dim=0) == 1).all(), "each token of each tile goes to one place"


def test_stitching_by_hand():
    """Two tokens a tile: the middle tile's first token is half of the whole axis' second."""
    expected = torch.tensor([[1, 0, 0, 0, 0, 0], [0, 0.5, 0.5, 0, 0, 0], [0, 0, 0, 0.5, 0.5, 0], [0, 0, 0, 0, 0, 1.0]])
    torch.testing.assert_close(stitching_matrix(2, 2), expected)


class Tiled(nn.Module):
    """Scores by the text in tiles, as torch exports it."""

    def __init__(self, tiles, **clip):
        super().__init__()
        layers = clip.get("layers", 4)
        self.model = tiny_model(clip=tiny_clip(**clip), adapter_layers=[0], tap_layers=[layers])
        self.scorer = TextScorer(self.model, Region(), tiles)

    def forward(self, images):
        return self.scorer.score(images, self.model.anchors)


@torch.no_grad()
def test_an_exported_model_sees_the_tiles_in_a_loop():
    """One copy of the tower however many tiles: its graph does not grow at all, its answers are the same."""
    nodes, images = {}, torch.randn(2, 3, 96, 96)
    for tiles in (2, 4):
        model, size = Tiled(tiles), 24 * tiles
        program = torch.export.export(model, (images[..., :size, :size],))
        nodes[tiles] = sum(len(module.graph.nodes) for module in program.graph_module.modules() if hasattr(module, "graph"))
        found, expected = program.module()(images[..., :size, :size]), model(images[..., :size, :size])
        torch.testing.assert_close(found.anomaly_map, expected.anomaly_map, atol=1e-5, rtol=0)
        torch.testing.assert_close(found.pred_score, expected.pred_score, atol=1e-5, rtol=0)
    assert nodes[2] == nodes[4] > 50


@pytest.mark.parametrize(("images", "seen"), [(1, [8, 8, 8, 1]), (3, [6] * 12 + [3]), (9, [9] * 25)])
@torch.no_grad()
def test_tiles_are_seen_some_at_a_time(images, seen):
    """Of one image eight tiles together; of more images than that one tile of each, as many as the user asked for."""
    batch, anchors, counts = torch.rand(images, 3, 72, 72), torch.rand(images, 8, 2), []

    def brightest_and_own_anchors(tiles, own):
        counts.append(len(tiles))
        return functional.avg_pool2d(tiles.mean(1), 4), tiles.amax((1, 2, 3)) * own[:, 0, 0]

    values, scores = predict_tiled(brightest_and_own_anchors, batch, anchors, (6, 6), 3)
    assert counts == seen
    torch.testing.assert_close(values, functional.avg_pool2d(batch.mean(1), 4))
    assert torch.equal(scores, batch.amax((1, 2, 3)) * anchors[:, 0, 0])


@pytest.mark.parametrize("length", [10, 37])
def test_shares_change_least_where_tiles_begin_or_end(length):
    change = blend_weights(length, 3).diff(dim=1).abs().sum(dim=0)
    edges = [length // 2 - 1, length - 1, length * 3 // 2 - 1, 2 * length - 1, length * 5 // 2 - 1]
    elsewhere = torch.ones(len(change), dtype=torch.bool)
    elsewhere[edges] = False
    assert change[edges].max() < 0.5 * change[elsewhere].max()


@pytest.mark.parametrize("tiles", [1, 2, 3])
def test_a_model_that_sees_patches_alone_gives_the_same_in_tiles(tiles):
    images = torch.rand(2, 3, 24 * tiles, 20 * tiles)
    values, score = predict_tiled(mean_of_patches, images, torch.zeros(8, 2), (6, 5), tiles)
    expected, brightest = mean_of_patches(images)
    torch.testing.assert_close(values, expected)
    assert torch.equal(score, brightest), "the score is the highest of any tile"


def test_tiles_that_disagree_meet_without_a_step():
    """Each tile sees another constant in [0, 1]; fading over half of 50 tokens, a step is at most pi / 50 of that."""
    levels = []

    def constant(tile, _anchors):
        levels.append(torch.rand(1, 1, generator=generator))
        return levels[-1].expand(1, 50, 50), levels[-1][0]

    generator = torch.Generator().manual_seed(0)
    values, _ = predict_tiled(constant, torch.zeros(1, 3, 150, 150), torch.zeros(8, 2), (50, 50), 3, at_once=1)
    assert values.std() > 0.1
    assert values.diff(dim=1).abs().max() < torch.pi / 50
    assert values.diff(dim=2).abs().max() < torch.pi / 50

    # anomalib's tiler, which takes the plain average of the same tiles, leaves steps.
    tiler = Tiler(tile_size=50, stride=25)
    tiler.tile(torch.zeros(1, 1, 150, 150))
    averaged = tiler.untile(torch.stack(levels).unsqueeze(1).expand(-1, 1, 50, 50))
    assert averaged.diff(dim=-1).abs().max() > 0.1


@pytest.fixture(scope="module")
def mini():
    return make_dpclip(backbone="mini", weights="clip", class_name="weave", tiles=3, visualizer=False).eval()


@pytest.mark.parametrize("kind", ["constant", "weave"])
@torch.no_grad()
def test_seams_do_not_show(mini, kind):
    """Where tiles begin or end, every five tokens, no step is larger than the steps inside a tile.

    Five percent are for the borders' shares, which are small and not 0: sin(pi / 20)^2 = 2.4 %, of two tiles.
    """
    image = torch.full((3, 420, 420), 0.5)
    if kind != "constant":
        surface = render_surface(kind, "grey", 420, np.random.default_rng(0))
        image = torch.from_numpy(surface).permute(2, 0, 1).float()
    seen = []

    def predict(tile, anchors):
        evidence = mini.model.evidence(tile, anchors)
        seen.append(evidence.margin)
        return evidence.margin, evidence.score

    values, _ = predict_tiled(predict, mini.pre_processor(image.unsqueeze(0)), mini.model.anchors, (10, 10), 3)
    at_edges, inside = values.diff(dim=-1)[..., 4::5], torch.cat(seen).diff(dim=-1)
    assert at_edges.shape == (1, 30, 5)
    assert at_edges.abs().max() < 1.05 * inside.abs().max()


@torch.no_grad()
def test_exports_with_a_dynamic_batch():
    model = Tiled(2, layers=1)
    images = torch.randn(3, 3, 48, 48)
    exported = torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)).module()
    for batch in (images, images[:1]):
        found, expected = exported(batch), model(batch)
        torch.testing.assert_close(found.anomaly_map, expected.anomaly_map)
        torch.testing.assert_close(found.pred_score, expected.pred_score)
