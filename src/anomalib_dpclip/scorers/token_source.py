"""Which tokens good images and an unlabelled batch are compared by: the backbone's own, or a second network's.

The comparison needs no text, so it needs no CLIP: networks that were trained on images alone tell more (PatchCore, Roth et
al., CVPR 2022; AnomalyDINO, Damm et al., WACV 2025).
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from anomalib_dpclip.clip.feature_tower import FeatureTower
from anomalib_dpclip.method.adapters import unit
from anomalib_dpclip.method.torch_model import TextEvidence
from anomalib_dpclip.pre_processing.resize import resize_bilinear

NEIGHBOURHOOD = 3
"""Side of the neighbourhood that a feature is averaged over, as in PatchCore."""

MAX_COARSE_GRID = 8
"""Rows of feature maps that are coarse already: an average of neighbours would see most of the image."""


class Tokens(NamedTuple):
    """Tokens of images.

    Attributes:
        separate: Tokens ``(B, L, C)`` that are compared layer by layer, one tensor a layer.
        joint: Tokens ``(B, L, C)`` on the finest grid that are compared all together, one tensor a layer; there may be none.
    """

    separate: list[Tensor]
    joint: list[Tensor]


class TokenSource(ABC):
    """Where the tokens that are compared come from.

    Attributes:
        grids: Rows and columns of the tokens of an image at each layer, the finest first.
        blur_sigma: Smoothing of the distances, in tokens of the finest grid.
    """

    grids: list[tuple[int, int]]
    blur_sigma = 0.5

    @abstractmethod
    def tokens(self, images: Tensor, evidence: TextEvidence | None) -> Tokens:
        """Tokens in full precision.

        Args:
            images: Images ``(B, 3, H, W)`` as the scorer takes them.
            evidence: What the text says of them, with the backbone's own tokens; only those need it.
        """


class OwnTokens(TokenSource):
    """The backbone's tokens before the projectors, whose GRN rescales channels image by image.

    Unit tokens less their image's mean: what all tokens of an image share (its colour, its light) is no anomaly.

    Args:
        grid: Rows and columns of the backbone's tokens.
        layers: Number of layers that are tapped.
    """

    def __init__(self, grid: tuple[int, int], layers: int) -> None:
        self.grids = [grid] * layers

    def tokens(self, images: Tensor, evidence: TextEvidence | None) -> Tokens:
        """See `TokenSource.tokens`."""
        del images
        if evidence is None:
            raise ValueError("the backbone's own tokens come with what the text says of an image")
        units = [unit(tap.float()) for tap in evidence.tokens]
        return Tokens([tokens - tokens.mean(dim=1, keepdim=True) for tokens in units], [])


class TowerTokens(TokenSource):
    """Feature vectors of a second network, read in two ways whose distances are added.

    Unit vectors of each layer on its own grid, of smaller images, find what differs in kind, however weak: scratches on a
    surface. The vectors of all layers together, as PatchCore joins them, of larger images, keep their lengths and, by the zeros
    around an image, their place: they find what is bent or missing.

    Args:
        tower: The network.
        mean: Mean of the image channels that the scorer's images were normalised with ``(3, 1, 1)``.
        std: Standard deviation of the image channels that they were normalised with.
    """

    blur_sigma = 1.0  # its tokens are averages of their neighbourhood, and no sharper

    def __init__(self, tower: FeatureTower, mean: Tensor, std: Tensor) -> None:
        self.tower, self.mean, self.std = tower, mean, std
        with torch.no_grad():
            maps = tower(torch.zeros(1, 3, *tower.reduced_size, device=tower.mean.device))
        self.grids = [(int(each.shape[-2]), int(each.shape[-1])) for each in maps]

    def tokens(self, images: Tensor, evidence: TextEvidence | None) -> Tokens:
        """See `TokenSource.tokens`."""
        del evidence
        plain = images.float() * self.std.to(images) + self.mean.to(images)
        large = self._maps(plain, self.tower.image_size)
        small = large if self.tower.reduced_size == self.tower.image_size else self._maps(plain, self.tower.reduced_size)
        return Tokens([_flat(_averaged(each)) for each in small], [self._joint(each) for each in large])

    def _maps(self, plain: Tensor, size: tuple[int, int]) -> list[Tensor]:
        if tuple(plain.shape[-2:]) != size:
            plain = resize_bilinear(plain, size)
        return [each.float() for each in self.tower(plain)]

    def _joint(self, features: Tensor) -> Tensor:
        # Zeros count at the border, which tells a token how near it is.
        pooled = functional.avg_pool2d(features, NEIGHBOURHOOD, 1, NEIGHBOURHOOD // 2)
        return resize_bilinear(pooled, self.grids[0]).flatten(2).transpose(1, 2)


def _averaged(features: Tensor) -> Tensor:
    """Feature maps averaged over a neighbourhood, as far as that is small in the image."""
    if min(features.shape[-2:]) <= MAX_COARSE_GRID:
        return features
    return functional.avg_pool2d(features, NEIGHBOURHOOD, 1, NEIGHBOURHOOD // 2, count_include_pad=False)


def _flat(features: Tensor) -> Tensor:
    return unit(features.flatten(2).transpose(1, 2))
