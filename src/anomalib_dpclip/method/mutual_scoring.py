"""The unlabelled lot: images that judge each other, for most of them are normal and defects are seldom alike (MuSc).

A panel of them, chosen by chance, judges all: what a lot takes grows with its size, not with its square.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from anomalib_dpclip.method.precision import full_precision

LOWEST_SHARE = 0.3
"""Of a token's distances to the other images so many count, the lowest: a few images may share its defect (MuSc)."""

PROJECTED_WIDTH = 128
"""Values of a token that are compared: a random projection of wider ones keeps distances, and takes a fraction of the time."""

PANEL = 200
"""Images that judge the lot at most. MuSc splits a lot into groups of about as many, which judge themselves."""


def random_projection(width: int, seed: int) -> Tensor | None:
    """Gaussian projection ``(C, PROJECTED_WIDTH)`` that keeps lengths in expectation; ``None`` for tokens as narrow already."""
    if width <= PROJECTED_WIDTH:
        return None
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(width, PROJECTED_WIDTH, generator=generator) / math.sqrt(PROJECTED_WIDTH)


def choose_panel(images: int, seed: int, size: int = PANEL) -> list[int]:
    """Numbers, in their order, of the images of a lot that judge it: all, or ``size`` of them by chance."""
    return sorted(torch.randperm(images, generator=torch.Generator().manual_seed(seed))[:size].tolist())


def mutual_distances(tokens: Tensor, panel: Tensor, own: Sequence[int | None]) -> Tensor:
    """How far each token of each image is from the images of the panel.

    Args:
        tokens: Centred tokens ``(B, T, L, C)``, in any precision.
        panel: Those of the panel ``(N, T, L, C)``.
        own: Each image's own number in the panel, which does not judge it; ``None`` if it is not there.

    Returns:
        Distances ``(B, L)``: for each tap to the nearest token of each other image, the lowest `LOWEST_SHARE` of them
        averaged (at least one), then the taps averaged.
    """
    result = []
    for image, number in zip(tokens, own, strict=True):
        others = [other for other in range(len(panel)) if other != number]
        result.append(torch.stack([_tap_distance(image[tap], panel[:, tap], others) for tap in range(len(image))]).mean(0))
    return torch.stack(result)


def _tap_distance(tokens: Tensor, panel: Tensor, others: list[int]) -> Tensor:
    """`mutual_distances` of one image at one tap, tokens ``(L, C)`` and panel ``(N, L', C)``."""
    own = tokens.float()
    nearest = torch.stack([_nearest(own, panel[other].float()) for other in others])
    return nearest.topk(max(1, round(LOWEST_SHARE * len(others))), dim=0, largest=False).values.mean(0)


def _nearest(own: Tensor, other: Tensor) -> Tensor:
    """Distance ``(L,)`` of tokens ``(L, C)`` to the nearest of another image ``(L', C)``."""
    with full_precision(own):
        # |x - m|^2 less |x|^2 in one pass; the minimum down the columns is twice as fast as along the rows.
        squares = torch.addmm(other.square().sum(1, keepdim=True), other, own.T, alpha=-2)
    return (squares.amin(0) + own.square().sum(1)).clamp_min(0).sqrt()
