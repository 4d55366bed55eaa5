"""Self-attention against torch's own module."""

import pytest
import torch

from anomalib_dpclip.clip.towers import self_attention

BATCH, TOKENS, WIDTH, HEADS = 2, 37, 48, 3


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


def relative_error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def test_single_precision_is_torchs(attention, tokens):
    expected = attended_and_gradient(torchs(attention), tokens)
    found = attended_and_gradient(lambda x: self_attention(attention, x), tokens)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("autocast", [True, False])
def test_training_in_bf16_rounds_and_no_more(attention, tokens, autocast):
    expected = attended_and_gradient(torchs(attention), tokens)
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
