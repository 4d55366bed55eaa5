"""Attention that learns in bf16 on a CPU: a few heads after another, whose weights are computed again in the backward pass.

torch's fused attention multiplies bf16 in small blocks there, which products of whole heads outrun. They round similarities to
bf16, which learning bears; inference, with less to gain, stays with the fused one.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CACHED_WEIGHTS = 2**22
"""Attention weights a group of heads may have at once: 8 MB in bf16, which stay in a processor's cache."""


def grouped_attention(heads: Tensor) -> Tensor:
    """Values weighted by ``softmax(q k / sqrt(D))`` (Vaswani et al., Attention Is All You Need, eq. 1).

    Args:
        heads: Queries, keys and values ``(3, B, H, L, D)``.

    Returns:
        ``(B, H, L, D)``.
    """
    attended: Tensor = _GroupedAttention.apply(heads.flatten(1, 2))
    return attended.unflatten(0, heads.shape[1:3])


class _GroupedAttention(torch.autograd.Function):
    """Values ``(N, L, D)`` weighted by attention, from queries, keys and values ``(3, N, L, D)``.

    All groups write to the same two pieces of memory: new ones would not be in the cache.
    """

    @staticmethod
    def forward(context: Any, heads: Tensor) -> Tensor:
        context.save_for_backward(heads)
        attended = torch.empty_like(heads[0])
        groups = _groups(heads)
        similarities, weights = _memory_for_a_group(groups)
        for queries, keys, values, out in zip(*groups, _groups(attended), strict=True):
            _attention_weights(queries, keys, similarities, weights)
            torch.bmm(weights, values, out=out)
        return attended

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> Tensor:
        (heads,) = context.saved_tensors
        gradients = torch.empty_like(heads)
        groups = _groups(heads)
        similarities, weights = _memory_for_a_group(groups)
        for queries, keys, values, to_attended, to_queries, to_keys, to_values in zip(
            *groups, _groups(gradient), *_groups(gradients), strict=True
        ):
            _attention_weights(queries, keys, similarities, weights)
            torch.bmm(weights.mT, to_attended, out=to_values)
            to_weights = torch.bmm(to_attended, values.mT, out=similarities)
            to_similarities = _through_softmax(to_weights, weights)
            torch.bmm(to_similarities, keys, out=to_queries)
            torch.bmm(to_similarities.mT, queries, out=to_keys)
        gradients[:2] *= _scale(heads)
        return gradients


def _groups(heads: Tensor) -> Tensor:
    """Heads ``(..., N, L, D)`` as ``(..., G, N / G, L, D)``, as many a group as may have their weights at once."""
    count, tokens = heads.shape[-3:-1]
    most = max(1, CACHED_WEIGHTS // tokens**2)
    size = next(size for size in range(min(most, count), 0, -1) if count % size == 0)
    return heads.unflatten(-3, (-1, size))


def _memory_for_a_group(groups: Tensor) -> Tensor:
    """Room for what is ``(N / G, L, L)``, twice, of groups ``(..., G, N / G, L, D)``."""
    size, tokens = groups.shape[-3:-1]
    return groups.new_empty(2, size, tokens, tokens)


def _scale(heads: Tensor) -> float:
    return float(heads.shape[-1] ** -0.5)


def _attention_weights(queries: Tensor, keys: Tensor, similarities: Tensor, weights: Tensor) -> None:
    """Write ``softmax(q k / sqrt(D))`` to ``weights``, and what it is of to ``similarities``."""
    torch.bmm(queries * _scale(queries), keys.mT, out=similarities)
    torch.softmax(similarities, dim=-1, out=weights)


def _through_softmax(gradient: Tensor, weights: Tensor) -> Tensor:
    """Gradient to similarities, ``w (g - sum(w g))``, in place of the one to their softmax ``w``."""
    gradient *= weights
    return gradient.addcmul_(weights, gradient.sum(dim=-1, keepdim=True), value=-1)
