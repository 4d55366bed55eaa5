"""Tiling: a large image is covered once, its tiles agree, and nothing shows where they meet."""

import pytest
import torch
from tests.tiny_clip import tiny_model
from torch import nn
from torch.nn import functional

from anomalib_dpclip.scorers.region import Region
from anomalib_dpclip.scorers.text_scorer import TextScorer
from anomalib_dpclip.scorers.tiling import blend_weights, predict_tiled, stitching_matrix


def test_weights_by_hand():
    """Two tokens a tile: the window is (1/2, 1/2), tiles start at tokens 0, 1 and 2."""
    expected = torch.tensor([[1, 0.5, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0.5, 1]])
    torch.testing.assert_close(blend_weights(2, 2), expected)
    # The middle tile's first token is half of the whole axis' second.
    expected = torch.tensor([[1, 0, 0, 0, 0, 0], [0, 0.5, 0.5, 0, 0, 0], [0, 0, 0, 0.5, 0.5, 0], [0, 0, 0, 0, 0, 1.0]])
    torch.testing.assert_close(stitching_matrix(2, 2), expected)


class Tiled(nn.Module):
    """Scores by the text in tiles, as torch exports it."""

    def __init__(self, tiles):
        super().__init__()
        self.model = tiny_model(adapter_layers=[0], tap_layers=[4])
        self.scorer = TextScorer(self.model, Region(), tiles)

    def forward(self, images):
        return self.scorer.score(images, self.model.anchors)


@torch.no_grad()
def test_an_exported_model_sees_the_tiles_in_a_loop_and_any_batch():
    """One copy of the tower however many tiles: its graph does not grow at all, its answers are the same."""
    nodes, batch = {}, {0: torch.export.Dim("batch", min=1)}
    for tiles in (2, 4):
        model, images = Tiled(tiles), torch.randn(2, 3, 24 * tiles, 24 * tiles)
        program = torch.export.export(model, (images,), dynamic_shapes=(batch,))
        nodes[tiles] = sum(len(module.graph.nodes) for module in program.graph_module.modules() if hasattr(module, "graph"))
        for each in (images, images[:1]):
            found, expected = program.module()(each), model(each)
            torch.testing.assert_close(found.anomaly_map, expected.anomaly_map, atol=1e-5, rtol=0)
            torch.testing.assert_close(found.pred_score, expected.pred_score, atol=1e-5, rtol=0)
    assert nodes[2] == nodes[4] > 50


@pytest.mark.parametrize(("images", "seen"), [(1, [8, 8, 8, 1]), (3, [6] * 12 + [3]), (9, [9] * 25)])
@torch.no_grad()
def test_tiles_are_seen_some_at_a_time_and_patches_come_out_as_they_are(images, seen):
    """Of one image eight tiles together; of more images than that one tile of each, as many as the user asked for."""
    batch, anchors, counts = torch.rand(images, 3, 72, 60), torch.rand(images, 8, 2), []

    def brightest_and_own_anchors(tiles, own):
        counts.append(len(tiles))
        return functional.avg_pool2d(tiles.mean(1), 4), tiles.amax((1, 2, 3)) * own[:, 0, 0]

    values, scores = predict_tiled(brightest_and_own_anchors, batch, anchors, (6, 5), 3)
    assert counts == seen
    torch.testing.assert_close(values, functional.avg_pool2d(batch.mean(1), 4))
    assert torch.equal(scores, batch.amax((1, 2, 3)) * anchors[:, 0, 0]), "the score is the highest of any tile"


def test_tiles_that_disagree_meet_without_a_step():
    """Each tile sees another constant in [0, 1]; fading over half of 50 tokens, a step is at most pi / 50 of that."""

    def constant(tile, _anchors):
        level = torch.rand(1, 1, generator=generator)
        return level.expand(1, 50, 50), level[0]

    generator = torch.Generator().manual_seed(0)
    values, _ = predict_tiled(constant, torch.zeros(1, 3, 150, 150), torch.zeros(8, 2), (50, 50), 3, at_once=1)
    assert values.std() > 0.1
    assert values.diff(dim=1).abs().max() < torch.pi / 50
    assert values.diff(dim=2).abs().max() < torch.pi / 50
