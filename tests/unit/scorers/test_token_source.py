"""Which tokens images are compared by."""

import pytest
import torch
from tests.tiny_clip import tiny_model

from anomalib_dpclip.scorers.token_source import OwnTokens


@torch.no_grad()
def test_the_backbone_s_tokens_without_what_all_of_an_image_share():
    model = tiny_model()
    evidence = model.evidence(torch.rand(2, 3, 24, 24), model.anchors)
    tokens = OwnTokens((6, 6)).tokens(torch.empty(0), evidence)
    assert [layer.shape for layer in tokens] == [(2, 36, 16)] * 4
    for layer in tokens:
        assert layer.mean(1).abs().max() < 1e-6
    with pytest.raises(ValueError, match="come with what the text says"):
        OwnTokens((6, 6)).tokens(torch.empty(0), None)
