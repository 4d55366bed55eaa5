"""Self-attention with the weights of `torch.nn.MultiheadAttention`, tokens batch-first throughout.

torch's own forward turns tokens into ``(L, B, C)`` views. Products with those are a matrix product per token position (in
bf16 on a CPU dozens of times slower), and without gradients its fast path holds the attention weights in memory.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

CACHED_WEIGHTS = 2**22
"""Attention weights a group of heads may have at once: 8 MB in bf16, which stay in a processor's cache."""


def self_attention(attention: nn.MultiheadAttention, tokens: Tensor) -> Tensor:
    """Attend from all tokens to all tokens, without mask or dropout.

    Args:
        attention: Its weights, of one width for queries, keys and values.
        tokens: ``(B, L, C)``.

    Returns:
        ``(B, L, C)``, equal to ``attention(tokens, tokens, tokens)`` up to rounding.
    """
    projected = linear(tokens, attention.in_proj_weight, attention.in_proj_bias)
    heads = projected.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (3, B, heads, L, C / heads)
    if tokens.device.type == "cpu":
        heads = heads.contiguous()  # earned back there; CUDA's kernels read heads as they lie
    attended = _attended_in_groups(heads) if _learns_in_bf16(heads) else scaled_dot_product_attention(*heads.unbind())
    return attention.out_proj(attended.transpose(1, 2).flatten(2))


def _learns_in_bf16(heads: Tensor) -> bool:
    """Whether tokens are learned from in bf16, on a processor that multiplies it (emulated, whole heads would take longer)."""
    if heads.device.type != "cpu" or heads.dtype != torch.bfloat16 or not heads.requires_grad:
        return False
    capabilities: Callable[[], Mapping[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)  # torch 2.10 has none
    return bool(capabilities().get("avx512_bf16", False))


def _attended_in_groups(heads: Tensor) -> Tensor:
    """Values weighted by attention, a few heads after another, whose weights are computed again in the backward pass.

    torch's fused attention multiplies bf16 in small blocks, which products of whole heads outrun. They round similarities to
    bf16, which learning bears; inference, with less to gain, stays with the fused one.

    Args:
        heads: Queries, keys and values ``(3, B, H, L, D)``.

    Returns:
        ``(B, H, L, D)``.
    """
    tokens = heads.shape[3]
    groups = heads.flatten(1, 2).split(max(1, CACHED_WEIGHTS // tokens**2), dim=1)
    attended = [checkpoint(_attended, *group.unbind(), use_reentrant=False, preserve_rng_state=False) for group in groups]
    return torch.cat(attended).unflatten(0, heads.shape[1:3])


def _attended(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Values ``(N, L, D)`` weighted by ``softmax(q k / sqrt(D))`` (Vaswani et al., Attention Is All You Need, eq. 1)."""
    scale = queries.shape[-1] ** -0.5
    return (queries * scale @ keys.transpose(1, 2)).softmax(dim=-1) @ values
