"""A memory of the target's own patch tokens, and how far each token of an image is from its nearest neighbour there.

Tokens are unit tap tokens less their image's mean, taken before the projectors, whose GRN rescales channels image by image.
What all tokens of an image share (its colour, its light) is thereby no anomaly: photos of few colours serve for the others.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur

from anomalib_dpclip.method.adapters import unit
from anomalib_dpclip.method.precision import full_precision

BLUR_SIGMA = 0.5
"""Smoothing of the distances, in tokens: PatchCore's 4 pixels on its tokens of 8 pixels."""

CHUNK = 4096
"""Tokens of the memory that one matrix product compares with: it bounds what a comparison takes, whatever the memory."""


def centred_tokens(taps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Unit tokens less the mean of their image.

    Args:
        taps: Tokens ``(B, L, C)``, one tensor a tap.

    Returns:
        ``(B, T, L, C)`` in full precision, and the means ``(B, T, C)``.
    """
    tokens = unit(torch.stack([tap.float() for tap in taps], dim=1))
    means = tokens.mean(dim=2)
    return tokens - means.unsqueeze(2), means


def nearest_distance(tokens: Tensor, memory: Tensor) -> Tensor:
    """Euclidean distance of each token to the nearest one of a memory.

    Args:
        tokens: ``(N, C)`` in full precision.
        memory: ``(M, C)`` in any precision.

    Returns:
        Distances ``(N,)``.
    """
    nearest = lowest = tokens.new_empty(0)
    for number, chunk in enumerate(memory.split(CHUNK)):
        known = chunk.to(tokens.dtype)
        with full_precision(tokens):
            # |x - m|^2 less |x|^2, which is the same for every m, in one pass.
            distances = torch.addmm(known.square().sum(1), tokens, known.T, alpha=-2)
        least, index = distances.min(dim=1)
        if number == 0:
            nearest, lowest = known[index], least
        else:
            nearest = torch.where((least < lowest).unsqueeze(1), known[index], nearest)
            lowest = torch.minimum(least, lowest)
    # Measured again: the expanded square is inexact where a token is very close to its neighbour.
    return (tokens - nearest).norm(dim=1)


def tap_mean_distance(tokens: Tensor, memory: Tensor) -> Tensor:
    """`nearest_distance` at each tap, averaged over the taps.

    Args:
        tokens: `centred_tokens` ``(B, T, L, C)``.
        memory: Tokens of each tap ``(T, M, C)``.

    Returns:
        Distances ``(B, L)`` in [0, 4].
    """
    distances = [nearest_distance(tokens[:, tap].flatten(0, 1), known) for tap, known in enumerate(memory)]
    return torch.stack(distances).mean(0).view(tokens.shape[0], tokens.shape[2])


class TokenMemory(nn.Module):
    """Patch tokens of reference photos in half precision, and how much they count beside the text.

    Args:
        tokens: Tokens of each tap ``(T, M, C)``, see `centred_tokens`.
        share: Weight of the memory in the fused difference, in [0, 1]; the text has the rest.
        photos: How many photos the tokens are of.
    """

    tokens: Tensor
    share: Tensor
    photos: Tensor

    def __init__(self, tokens: Tensor, share: float = 0.5, photos: int = 0) -> None:
        super().__init__()
        self.register_buffer("tokens", tokens.half())
        self.register_buffer("share", torch.tensor(float(share), device=tokens.device))
        self.register_buffer("photos", torch.tensor(photos, device=tokens.device))

    def forward(self, tokens: Tensor) -> Tensor:
        """Distances ``(B, L)`` of `centred_tokens` ``(B, T, L, C)``."""
        return tap_mean_distance(tokens, self.tokens)


def smooth_distance(distance: Tensor) -> Tensor:
    """Distances ``(B, rows, columns)``, smoothed less than the text's map: they are sharper."""
    with full_precision(distance):
        return gaussian_blur(distance.unsqueeze(1), [3, 3], [BLUR_SIGMA, BLUR_SIGMA]).squeeze(1)


def fuse(difference: Tensor, distance: Tensor, share: Tensor | float) -> Tensor:
    """One evidence from two: the text's similarity difference and the memory's distance, both as wide as [-2, 2].

    Args:
        difference: Similarity difference in [-2, 2].
        distance: `tap_mean_distance` in [0, 4], of the same shape.
        share: Of the memory, in [0, 1].

    Returns:
        Fused differences in [-2, 2], of which `anomaly_map` makes a map that never saturates.
    """
    return (1 - share) * difference + share * (distance - 2)
