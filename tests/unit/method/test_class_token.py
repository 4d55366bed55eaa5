"""The class token's zero-shot score in place of the detection projector's."""

import pytest
import torch
from tests.tiny_clip import tiny_clip, tiny_model


@pytest.mark.parametrize("tap_layers", [[1, 2, 3, 4], [2]])
@torch.no_grad()
def test_without_adapters_it_is_the_zero_shot_score_of_open_clip(tap_layers):
    clip = tiny_clip()
    model = tiny_model(clip=clip, adapter_layers=[], tap_layers=tap_layers, detection="class_token")
    images = torch.randn(3, 3, 24, 24, generator=torch.Generator().manual_seed(2))
    cosine = clip.encode_image(images, normalize=True) @ model.anchors
    predicted = model.predict(images, model.anchors)
    torch.testing.assert_close(predicted.pred_score, 0.5 + (cosine[:, 1] - cosine[:, 0]) / 4, rtol=0, atol=1e-6)


@torch.no_grad()
def test_it_changes_neither_the_map_nor_what_is_learned_from():
    published, other = tiny_model(), tiny_model(detection="class_token")
    images = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(2))
    anchors = published.anchors
    expected, found = published.predict(images, anchors), other.predict(images, anchors)
    assert torch.equal(found.anomaly_map, expected.anomaly_map)
    assert not torch.allclose(found.pred_score, expected.pred_score)
    assert torch.equal(other.features(images)[1], published.features(images)[1])


def test_another_word_is_refused():
    with pytest.raises(ValueError, match="detection must be one of projector, class_token, not 'token'"):
        tiny_model(detection="token")
