"""Self-attention with the weights of `torch.nn.MultiheadAttention`, tokens batch-first throughout.

torch's own forward turns tokens into ``(L, B, C)`` views. Products with those are a matrix product per token position (in
bf16 on a CPU dozens of times slower), and without gradients its fast path holds the attention weights in memory.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from anomalib_dpclip.clip.grouped_attention import grouped_attention


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
    attended = grouped_attention(heads) if _learns_in_bf16(heads) else scaled_dot_product_attention(*heads.unbind())
    return attention.out_proj(attended.transpose(1, 2).flatten(2))


def _learns_in_bf16(heads: Tensor) -> bool:
    """Whether tokens are learned from in bf16, on a processor that multiplies it (emulated, whole heads would take longer)."""
    if heads.device.type != "cpu" or heads.dtype != torch.bfloat16 or not heads.requires_grad:
        return False
    capabilities: Callable[[], Mapping[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)  # torch 2.10 has none
    return bool(capabilities().get("avx512_bf16", False))
