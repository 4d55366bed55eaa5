import pytest
import torch
from tests.tiny_clip import tiny_model
from torch.nn import functional

from anomalib_dpclip.clip.feature_tower import FeatureTower
from anomalib_dpclip.scorers.token_source import OwnTokens, TowerTokens


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
