"""Towers of every family: our loop without adapters against timm's and open_clip's own forward."""

import pytest
import timm
import torch
from open_clip.timm_model import TimmModel
from safetensors.torch import save_file
from tests.tiny_towers import TIMM, VISION, register, stir, tiny_backbone
from torch.nn import functional

from anomalib_dpclip.clip.loading import load_clip
from anomalib_dpclip.clip.towers import self_attention, tower_of
from anomalib_dpclip.clip.weights import fingerprint
from anomalib_dpclip.method.objective import training_objective
from anomalib_dpclip.method.prototypes import Prototypes
from anomalib_dpclip.method.torch_model import DPCLIPModel
from anomalib_dpclip.method.unadapted import UnadaptedCLIP

POOLED_BY_ATTENTION = {"sig", "pe"}


@pytest.fixture(autouse=True)
def _known(tmp_path, monkeypatch):
    register(tmp_path, monkeypatch)


def images(size):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(size))


def layer_by_layer(tower, pixels):
    tokens = [tower.embed(pixels)]
    for index in range(tower.depth):
        tokens.append(tower.layer(index, tokens[-1]))
    return tokens[1:]


def own_intermediates(visual, pixels, norm):
    """Patch tokens after each layer, as timm or open_clip gives them out."""
    if hasattr(visual, "trunk"):
        return visual.trunk.forward_intermediates(pixels, norm=norm, output_fmt="NLC", intermediates_only=True)
    if not hasattr(visual, "forward_intermediates"):
        pytest.skip("this open_clip does not give out patch tokens")
    return visual.forward_intermediates(pixels, normalize_intermediates=norm, output_fmt="NLC")["image_intermediates"]


def assert_equal(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-6 * max(1, expected.abs().max().item()), rtol=0)


@pytest.mark.parametrize("size", [80, 112])
@pytest.mark.parametrize("name", VISION)
@torch.no_grad()
def test_the_loop_is_the_tower_s_own(name, size):
    clip, _ = tiny_backbone(name, size)
    tower = tower_of(clip.visual)
    assert (tower.depth, tower.patch_size, tower.image_size, tower.grid) == (4, 16, (size, size), (size // 16, size // 16))
    tokens = layer_by_layer(tower, images(size))
    assert tokens[-1].shape == (2, tower.prefix_tokens + (size // 16) ** 2, tower.width)
    for norm in (False, True):
        for found, expected in zip(tokens, own_intermediates(clip.visual, images(size), norm), strict=True):
            patches = found[:, tower.prefix_tokens :]
            assert_equal(tower.final_norm(patches) if norm else patches, expected)
    image = tower.image_feature(tokens[-1])
    assert image.shape == (2, tower.embed_dim)
    assert_equal(image, clip.encode_image(images(size)))
    assert tower.places_patches == (name not in POOLED_BY_ATTENTION)


@pytest.mark.parametrize("name", sorted(set(VISION) - POOLED_BY_ATTENTION))
@torch.no_grad()
def test_patches_go_where_the_image_goes(name):
    """What makes tokens the image feature makes each patch token the patch's: a patch put in the class token's place, or in
    that of all patches where they are averaged, gives the same.
    """
    clip, _ = tiny_backbone(name)
    tower = tower_of(clip.visual)
    tokens = layer_by_layer(tower, images(80))[-1]
    patch = tokens[:, tower.prefix_tokens + 2 :][:, :1]
    moved = (
        [patch, tokens[:, 1:]] if name not in {"gap", "clipa"} else [tokens[:, : tower.prefix_tokens], patch.repeat(1, 25, 1)]
    )
    assert_equal(tower.image_feature(torch.cat(moved, dim=1)), tower.patch_features(tokens)[:, 2])


@pytest.mark.parametrize("name", VISION)
@torch.no_grad()
def test_the_unadapted_score_is_open_clip_s_zero_shot_score(name):
    clip, text = tiny_backbone(name)
    model = UnadaptedCLIP(clip).eval()
    anchors = functional.normalize(text(["a perfect part.", "a broken part."]), dim=-1).T
    model.anchors.copy_(anchors)
    prediction = model(images(80))
    own = clip.encode_image(images(80), normalize=True) @ anchors
    assert_equal(prediction.pred_score, 0.5 + (own[:, 1] - own[:, 0]) / 4)
    assert prediction.anomaly_map.shape == (2, 80, 80)
    assert (prediction.anomaly_map == 0.5).all() == (name in POOLED_BY_ATTENTION)
    if name not in POOLED_BY_ATTENTION:  # patches contrast both anchors, as the image does
        tokens = layer_by_layer(model.backbone, images(80))[-1]
        similarity = functional.normalize(model.backbone.patch_features(tokens), dim=-1) @ anchors
        assert_equal(model.evidence(images(80), anchors).margin.flatten(1), similarity[..., 1] - similarity[..., 0])


@pytest.mark.parametrize("name", sorted(POOLED_BY_ATTENTION))
def test_a_medical_score_needs_a_map(name, caplog):
    clip, _ = tiny_backbone(name)
    with pytest.raises(ValueError, match="weights='clip' has no anomaly map on a backbone that pools by attention"):
        UnadaptedCLIP(clip, "medical")
    model = UnadaptedCLIP(clip)
    assert "its anomaly map says nothing" in caplog.text
    with pytest.raises(ValueError, match="no anomaly map"):
        model.domain = "medical"
    assert model.domain == "industrial"


@pytest.mark.parametrize("name", VISION)
def test_only_adapters_learn(name):
    clip, text = tiny_backbone(name)
    model = DPCLIPModel(clip).train()
    assert not any(module.training for module in model.backbone.modules())
    anchors = functional.normalize(text(["a part.", "a broken part."]), dim=-1).T.expand(2, -1, -1)
    mask = torch.zeros(2, 80, 80, dtype=torch.bool)
    mask[1, 20:50, 20:50] = True
    prototypes = Prototypes(model.backbone.embed_dim, 0.9)
    training_objective(model, prototypes, images(80), mask, torch.tensor([0, 1]), anchors).total.backward()
    for parameter_name, parameter in model.named_parameters():
        learns = parameter_name.startswith(model.adapter_prefixes)
        assert parameter.requires_grad == learns, parameter_name
        assert (parameter.grad is not None and parameter.grad.abs().max() > 0) == learns, parameter_name


@pytest.mark.parametrize("name", VISION)
def test_positions_of_weights_from_a_file_are_interpolated(name, tmp_path):
    clip, _ = tiny_backbone(name, seed=1)
    path = tmp_path / "clip.safetensors"
    save_file({key: value.contiguous() for key, value in clip.state_dict().items()}, path)
    loaded, _ = load_clip(f"dpclip-test-{name}", str(path), 112)
    own = "positional_embedding" if name not in TIMM else "trunk.pos_embed"
    before, after = (model.visual.state_dict()[own].reshape(-1, tower_of(model.visual).width) for model in (clip, loaded))
    prefix = len(before) - 25
    grid = before[prefix:].reshape(1, 5, 5, -1).permute(0, 3, 1, 2)
    resized = functional.interpolate(grid, (7, 7), mode="bicubic", antialias=True).flatten(2)[0].T
    torch.testing.assert_close(after, torch.cat([before[:prefix], resized]))
    for key, value in loaded.state_dict().items():
        assert "pos" in key or torch.equal(value, clip.state_dict()[key]), key
    assert fingerprint(loaded) == fingerprint(clip)
    stir(loaded)
    assert fingerprint(loaded) != fingerprint(clip)


def test_a_bias_of_the_scale_may_have_another_rank_and_another_text_tower_is_refused(tmp_path):
    clip, _ = tiny_backbone("sig")
    state = {key: value.contiguous() for key, value in clip.state_dict().items()}
    save_file(state | {key: state[key].reshape(1) for key in ("logit_scale", "logit_bias")}, tmp_path / "clip.safetensors")
    loaded, _ = load_clip("dpclip-test-sig", str(tmp_path / "clip.safetensors"), 80)
    assert loaded.logit_bias.shape == ()
    with pytest.raises(ValueError, match="holds no CLIP weights of backbone 'dpclip-test-eva'"):
        load_clip("dpclip-test-eva", str(tmp_path / "clip.safetensors"), 80)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet18", {}, "not a ResNet, which is convolutional, hierarchical or of another kind"),
        ("vitamin_small_224", {}, "not a hybrid of convolutions and VisionTransformer"),
        ("test_vit2", {"global_pool": "max"}, "not a VisionTransformer that pools by 'max'"),
        ("vit_relpos_small_patch16_224", {}, "not a VisionTransformerRelPos"),
    ],
)
def test_other_trunks_are_refused_by_name(name, arguments, message, monkeypatch):
    monkeypatch.undo()
    visual = TimmModel("test_vit", embed_dim=8, pool="avg", proj=None)
    visual.trunk = timm.create_model(name, **arguments)
    with pytest.raises(ValueError, match=message):
        tower_of(visual)


def test_an_old_timm_says_so(monkeypatch):
    monkeypatch.delattr("timm.models.vision_transformer.VisionTransformer.set_input_size")
    with pytest.raises(ValueError, match="this timm cannot resize VisionTransformer: upgrade it"):
        tiny_backbone("sig", 96)


BATCH, TOKENS, WIDTH, HEADS = 2, 37, 48, 3


@pytest.mark.parametrize(("autocast", "dtype"), [(False, torch.float32), (True, torch.float32), (False, torch.bfloat16)])
def test_it_is_torch_s_with_its_gradient_and_holds_no_attention_weights(autocast, dtype):
    """In bf16 up to rounding. Weights of a tower's attention would take several times the memory of everything else."""
    torch.manual_seed(0)
    attention = torch.nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).requires_grad_(False)
    for bias in (attention.in_proj_bias, attention.out_proj.bias):  # which start at zero
        torch.nn.init.normal_(bias)
    values, weights, held = 2 * torch.randn(BATCH, TOKENS, WIDTH), torch.randn(BATCH, TOKENS, WIDTH), []

    def attended_and_gradient(attend, kind):
        tokens = values.to(kind, copy=True).requires_grad_()
        attended = attend(tokens)
        (attended * weights).sum().backward()
        return torch.stack([attended.detach().float(), tokens.grad.float()])

    def attend(tokens):
        with (
            torch.autograd.graph.saved_tensors_hooks(lambda saved: (held.append(saved.numel()), saved)[1], lambda saved: saved),
            torch.autocast("cpu", torch.bfloat16, enabled=autocast),
        ):
            return self_attention(attention, tokens)

    expected = attended_and_gradient(lambda tokens: attention(tokens, tokens, tokens, need_weights=False)[0], torch.float32)
    attention = attention.to(dtype)
    found = attended_and_gradient(attend, dtype)
    is_single = dtype == torch.float32 and not autocast
    assert ((found - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)).max() < (1e-6 if is_single else 0.02)
    assert 0 < max(held) < BATCH * HEADS * TOKENS**2 or is_single
