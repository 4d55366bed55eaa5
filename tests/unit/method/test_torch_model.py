"""Wiring of the model, beside the published numbers: layers, classes in a batch, the class token, sentences, bad arguments."""

import pytest
import torch
from open_clip.model import CLIP
from tests.tiny_clip import CONFIG, tiny_clip, tiny_model
from torch.nn import functional

from anomalib_dpclip.method.prompting import prompts
from anomalib_dpclip.method.torch_model import DPCLIPModel

IMAGES = torch.randn(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("depth", "adapters", "taps"),
    [(24, range(6), (6, 12, 18, 24)), (12, range(3), (3, 6, 9, 12)), (6, range(2), (2, 3, 5, 6)), (4, [0], (1, 2, 3, 4))],
)
def test_default_layers_are_quarters_of_the_depth(depth, adapters, taps):
    model = DPCLIPModel(tiny_clip(layers=depth))
    assert model.adapter_layers == tuple(adapters)
    assert model.tap_layers == taps


@torch.no_grad()
def test_a_batch_may_mix_classes():
    model = tiny_model()
    anchors = functional.normalize(torch.randn(3, 8, 2), dim=1)
    mixed = model.predict(IMAGES, anchors)
    for index in range(3):
        alone = model.predict(IMAGES[index : index + 1], anchors[index])
        torch.testing.assert_close(mixed.anomaly_map[index], alone.anomaly_map[0])
        torch.testing.assert_close(mixed.pred_score[index], alone.pred_score[0])


def test_the_text_tower_is_no_part_of_the_model():
    assert not any("token_embedding" in name or "text" in name for name in tiny_model().state_dict())


@pytest.mark.parametrize("tap_layers", [[1, 2, 3, 4], [2]])
@torch.no_grad()
def test_by_the_class_token_without_adapters_it_is_the_zero_shot_score_of_open_clip(tap_layers):
    clip = tiny_clip()
    model = tiny_model(clip=clip, adapter_layers=[], tap_layers=tap_layers, detection="class_token")
    cosine = clip.encode_image(IMAGES, normalize=True) @ model.anchors
    predicted = model.predict(IMAGES, model.anchors)
    torch.testing.assert_close(predicted.pred_score, 0.5 + (cosine[:, 1] - cosine[:, 0]) / 4, rtol=0, atol=1e-6)


@torch.no_grad()
def test_the_class_token_changes_neither_the_map_nor_what_is_learned_from():
    published, other = tiny_model(), tiny_model(detection="class_token")
    expected, found = published.predict(IMAGES, published.anchors), other.predict(IMAGES, published.anchors)
    assert torch.equal(found.anomaly_map, expected.anomaly_map)
    assert not torch.allclose(found.pred_score, expected.pred_score)
    assert torch.equal(other.features(IMAGES)[1], published.features(IMAGES)[1])


@torch.no_grad()
def test_autocast_leaves_single_precision_maps():
    model = tiny_model()
    expected = model(IMAGES)
    with torch.autocast("cpu", torch.bfloat16):
        result = model(IMAGES)
    assert result.anomaly_map.dtype == result.pred_score.dtype == torch.float32
    # A map rounded to bfloat16 around 0.5 would have steps of 0.004; here only the tokens lose precision.
    assert result.anomaly_map.unique().numel() > 1000
    torch.testing.assert_close(result.anomaly_map, expected.anomaly_map, atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tap_layers": [1, 5]}, r"tap_layers=\[1, 5\] must be ascending and within 1..4, the backbone has 4 layers"),
        ({"tap_layers": [2, 2]}, "tap_layers.*ascending"),
        ({"tap_layers": []}, "tap_layers must name at least one layer"),
        ({"adapter_layers": [4]}, r"adapter_layers=\[4\] must be ascending and within 0..3"),
        ({"adapter_weight": 1.5}, r"adapter_weight must lie in \[0, 1\], not 1.5"),
        ({"grn_pooling": "mean"}, "grn_pooling must be one of tokens, batch, none, not 'mean'"),
        ({"detection": "token"}, "detection must be one of projector, class_token, not 'token'"),
        ({"domain": "space"}, "domain must be one of industrial, medical, not 'space'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        DPCLIPModel(tiny_clip(), **arguments)


def test_images_that_do_not_fit():
    clip = tiny_clip(image_size=16)
    with pytest.raises(ValueError, match=r"image_size must be at least 20 for the medical blur"):
        DPCLIPModel(clip, domain="medical")
    with pytest.raises(ValueError, match=r"images are \(28, 24\), the model takes \(16, 16\): resize them"):
        DPCLIPModel(clip).features(torch.zeros(1, 3, 28, 24))


@pytest.mark.parametrize(
    "vision",
    [
        {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32},  # ResNet
        CONFIG["vision_cfg"] | {"attentional_pool": True, "attn_pooler_heads": 2},  # CoCa
    ],
)
def test_a_tower_of_another_kind(vision):
    clip = CLIP(**(CONFIG | {"vision_cfg": vision}))
    with pytest.raises(ValueError, match=r"native open_clip vision transformer \(such as ViT-L-14-336\), not a "):
        DPCLIPModel(clip)


@pytest.mark.parametrize("name", ["nut {} with braces", "{0}", "100 % %s", "Straße 你好", "x" * 300, ""])
def test_any_class_name_is_put_in_as_it_is(name):
    assert prompts(name, ["a {}"], ["photo of {}!"]) == [f"photo of a {name}!"]


@pytest.mark.parametrize(
    ("states", "templates", "message"),
    [
        (["a thing"], ["{}."], r"prompt 'a thing' must contain \{\} exactly once"),
        (["{} and {}"], ["{}."], r"prompt '\{\} and \{\}' must contain"),
        (["{}"], ["photo"], r"prompt 'photo' must contain"),
        (["{}"], [], "at least one state and one template"),
    ],
)
def test_bad_prompts(states, templates, message):
    with pytest.raises(ValueError, match=message):
        prompts("screw", states, templates)
