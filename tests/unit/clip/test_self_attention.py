"""Self-attention against torch's own module, fused and in groups of heads."""

import pytest
import torch

from anomalib_dpclip.clip import grouped_attention
from anomalib_dpclip.clip.self_attention import self_attention

BATCH, TOKENS, WIDTH, HEADS = 2, 37, 48, 3


@pytest.fixture(autouse=True)
def processor(monkeypatch):
    """What torch says of the processor: here that it multiplies bf16, whichever it is."""
    can = {"avx512_bf16": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can, raising=False)
    return can


@pytest.fixture
def attention():
    """torch's module, biases included, which start at zero."""
    torch.manual_seed(0)
    layer = torch.nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).requires_grad_(False)
    for bias in (layer.in_proj_bias, layer.out_proj.bias):
        torch.nn.init.normal_(bias)
    return layer


@pytest.fixture
def tokens():
    return torch.randn(BATCH, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1)) * 2


def attended_and_gradient(attend, tokens, dtype=torch.float32):
    """What comes out of an attention for tokens, and the gradient of a weighted sum of it, in fp32."""
    tokens = tokens.to(dtype, copy=True).requires_grad_()
    attended = attend(tokens)
    weights = torch.randn(attended.shape, generator=torch.Generator().manual_seed(2))
    (attended * weights).sum().backward()
    return attended.detach().float(), tokens.grad.float()


def torchs(attention):
    """torch's own forward of tokens."""
    return lambda tokens: attention(tokens, tokens, tokens, need_weights=False)[0]


def learning_in_bf16(attention, tokens):
    """What comes out of our attention where it is learned from."""
    with torch.autocast("cpu", torch.bfloat16):
        return self_attention(attention, tokens.detach().requires_grad_()).detach()


def relative_error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def test_single_precision_is_torchs(attention, tokens):
    expected = attended_and_gradient(torchs(attention), tokens)
    found = attended_and_gradient(lambda x: self_attention(attention, x), tokens)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("heads_a_group", [1, 2, 4, 100])
@pytest.mark.parametrize("autocast", [True, False])
def test_training_in_bf16_rounds_and_no_more(attention, tokens, monkeypatch, heads_a_group, autocast):
    """Of six heads in groups of 1, 2, 3 (no more than 4) or all at once, outputs and gradients are torch's in fp32."""
    expected = attended_and_gradient(torchs(attention), tokens)
    monkeypatch.setattr(grouped_attention, "CACHED_WEIGHTS", heads_a_group * TOKENS**2)
    if not autocast:
        attention = attention.bfloat16()

    def attend(x):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return self_attention(attention, x)

    found = attended_and_gradient(attend, tokens, torch.float32 if autocast else torch.bfloat16)
    assert relative_error(found[0], expected[0]) < 0.02
    assert relative_error(found[1], expected[1]) < 0.02


def test_no_weights_are_held_for_the_backward_pass(attention):
    """A tower's attention weights would take several times the memory of everything else, heads included."""
    tokens = torch.randn(BATCH, 101, WIDTH)
    held = []

    def hold(saved):
        held.append(saved.numel())
        return saved

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda saved: saved), torch.autocast("cpu", torch.bfloat16):
        self_attention(attention, tokens.requires_grad_())
    assert held
    assert max(held) < BATCH * HEADS * tokens.shape[1] ** 2


def test_inference_in_bf16_rounds_less_than_training(attention, tokens):
    """Fused attention keeps similarities in fp32."""
    expected = torchs(attention)(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        inference = self_attention(attention, tokens)
    training = learning_in_bf16(attention, tokens)
    assert relative_error(inference.float(), expected) < relative_error(training.float(), expected) < 0.02


def test_processors_without_bf16_stay_with_the_fused_attention(attention, tokens, processor, monkeypatch):
    """Emulated, products of whole heads take several times as long. Older torch does not say what a processor can."""
    grouped = learning_in_bf16(attention, tokens)
    processor["avx512_bf16"] = False
    fused = learning_in_bf16(attention, tokens)
    assert not torch.equal(fused, grouped)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fused, self_attention(attention, tokens))
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert torch.equal(learning_in_bf16(attention, tokens), fused)
