"""Self-attention with the weights of `torch.nn.MultiheadAttention`, tokens batch-first throughout.

torch's own forward turns tokens into ``(L, B, C)`` views. Products with those are a matrix product per token position (in
bf16 on a CPU dozens of times slower), and without gradients its fast path holds the attention weights in memory.
"""

from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention


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
    attended = scaled_dot_product_attention(*heads.unbind())
    return attention.out_proj(attended.transpose(1, 2).flatten(2))
