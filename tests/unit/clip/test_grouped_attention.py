"""Attention in groups of heads against torch's, where nothing is rounded."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from anomalib_dpclip.clip import grouped_attention as module
from anomalib_dpclip.clip.grouped_attention import grouped_attention

TOKENS = 5


@pytest.fixture
def heads():
    """Queries, keys and values of two images, three heads each, in double precision."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 2, 3, TOKENS, 4, generator=generator, dtype=torch.double, requires_grad=True)


@pytest.mark.parametrize(("most", "size"), [(0.5, 1), (1, 1), (2, 2), (3, 3), (5, 3), (6, 6), (100, 6)])
def test_groups_have_one_size_and_no_more_weights_than_fit(heads, monkeypatch, most, size):
    """Of six heads; a single head may have more."""
    monkeypatch.setattr(module, "CACHED_WEIGHTS", most * TOKENS**2)
    sizes = []
    bmm = torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda left, right, out: sizes.append(len(left)) or bmm(left, right, out=out))
    attended = grouped_attention(heads)
    assert sizes == [size] * (2 * 6 // size)
    torch.testing.assert_close(attended, scaled_dot_product_attention(*heads))


@pytest.mark.parametrize("most", [1, 2, 6])
def test_gradients_are_those_of_differences(heads, monkeypatch, most):
    monkeypatch.setattr(module, "CACHED_WEIGHTS", most * TOKENS**2)
    assert torch.autograd.gradcheck(grouped_attention, heads)


def test_it_has_no_second_derivative(heads):
    """Nobody needs one; a wrong one would go unnoticed."""
    (gradient,) = torch.autograd.grad(grouped_attention(heads).square().sum(), heads, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
