"""Self-attention against torch's own module."""

import pytest
import torch

from anomalib_dpclip.clip.towers import self_attention

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
