"""The unlabelled lot: images that judge each other, for most of them are normal and defects are seldom alike (MuSc)."""

import math

import torch
from torch import Tensor

from anomalib_dpclip.method.precision import full_precision

LOWEST_SHARE = 0.3
"""Of a token's distances to the other images so many count, the lowest: a few images may share its defect (MuSc)."""

PROJECTED_WIDTH = 128
"""Values of a token that are compared: a random projection of wider ones keeps distances, and takes a fraction of the time."""

GROUP = 200
"""Images that judge each other at most: a larger lot is split, by chance."""

CHUNK_VALUES = 2**24
"""Distances that are in memory at a time (64 MB)."""


def random_projection(width: int, seed: int) -> Tensor | None:
    """Gaussian projection ``(C, PROJECTED_WIDTH)`` that keeps lengths in expectation; ``None`` for tokens as narrow already."""
    if width <= PROJECTED_WIDTH:
        return None
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(width, PROJECTED_WIDTH, generator=generator) / math.sqrt(PROJECTED_WIDTH)


def groups(images: int, seed: int, size: int = GROUP) -> list[Tensor]:
    """Split image numbers by chance into groups of equal size, none above ``size``."""
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed))
    return list(order.tensor_split(max(1, math.ceil(images / size))))


def mutual_distances(tokens: Tensor) -> Tensor:
    """How far each token of each image is from the other images of its group.

    Args:
        tokens: Centred tokens ``(N, T, L, C)``, at least two images, in any precision.

    Returns:
        Distances ``(N, L)``: for each tap to the nearest token of each other image, the lowest `LOWEST_SHARE` of them
        averaged (at least one), then the taps averaged.
    """
    images, taps = tokens.shape[:2]
    counted = max(1, round(LOWEST_SHARE * (images - 1)))
    result = torch.stack([_tap_distances(tokens[:, tap], counted) for tap in range(taps)])
    return result.mean(0)


def _tap_distances(tokens: Tensor, counted: int) -> Tensor:
    """`mutual_distances` of one tap, tokens ``(N, L, C)``."""
    images, length, _ = tokens.shape
    step = max(1, CHUNK_VALUES // length**2)
    result = []
    for index in range(images):
        own = tokens[index].float()
        others = [other for other in range(images) if other != index]
        nearest = torch.cat([_nearest(own, tokens[others[start : start + step]]) for start in range(0, len(others), step)])
        result.append(nearest.topk(counted, dim=0, largest=False).values.mean(0))
    return torch.stack(result)


def _nearest(own: Tensor, others: Tensor) -> Tensor:
    """Distance ``(M, L)`` of tokens ``(L, C)`` to the nearest of each other image ``(M, L', C)``."""
    known = others.flatten(0, 1).float()
    with full_precision(own):
        squares = known.square().sum(1) - 2 * (own @ known.T)
    least = squares.view(len(own), *others.shape[:2]).amin(2).T
    return (least + own.square().sum(1)).clamp_min(0).sqrt()
