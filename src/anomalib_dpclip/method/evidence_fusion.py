"""How much the memory and how much the text count, from photos of the target alone.

Each photo is judged by the others, as it is and with synthetic defects. Fisher's linear discriminant between the tokens of
the one and of the other kind gives the weights: evidence that does not tell them apart counts nothing.
"""

import torch
from torch import Tensor

MIN_MEMORY_WEIGHT = 0.95
"""The memory counts at least nineteen times as much as the text, both in deviations of normal tokens.

Synthetic defects look more like what the text has learned of than real ones do: on held-out materials the discriminant alone
gives too much weight to the text, and the map loses by it (``benchmark_results/references_ablation.md``).
"""

GAUSSIAN_MAD = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation.

Distances between photos of which only some look alike have two modes, which inflate the plain standard deviation.
"""


def memory_weight(normal: Tensor, anomalous: Tensor) -> float:
    """Share of the memory in `anomalib_dpclip.method.memory.fuse`.

    Args:
        normal: Difference and distance ``(N, 2)`` of the photos' tokens, each photo judged by the others.
        anomalous: The same ``(A, 2)`` of tokens in synthetic defects; there may be none.

    Returns:
        Share in [0, 1].
    """
    normal, anomalous = normal.double().cpu(), anomalous.double().cpu()
    absolute = (normal - normal.median(dim=0).values).abs()
    deviation = (GAUSSIAN_MAD * absolute.median(dim=0).values).clamp_min(1e-6)
    share = MIN_MEMORY_WEIGHT
    if len(anomalous) > 2:  # fewer have no covariance
        text, memory = _discriminant(normal / deviation, anomalous / deviation).tolist()
        if memory > 0:
            share = max(memory / (text + memory), MIN_MEMORY_WEIGHT)
    text_weight, memory_weight = (1 - share) / deviation[0], share / deviation[1]
    return float(memory_weight / (text_weight + memory_weight))


def _discriminant(normal: Tensor, anomalous: Tensor) -> Tensor:
    """Fisher's weights, none negative: what would count negatively is left out, and the other stands alone."""
    between = anomalous.mean(0) - normal.mean(0)
    within = (torch.cov(normal.T) + torch.cov(anomalous.T)) / 2
    weights = torch.linalg.solve(within + 1e-6 * torch.eye(2, dtype=within.dtype), between)
    return torch.where((weights < 0).any(), weights.sign().clamp_min(0), weights)
