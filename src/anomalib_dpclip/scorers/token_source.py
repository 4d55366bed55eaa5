"""Which tokens good images and an unlabelled batch are compared by: the backbone's own, or a second network's.

The comparison needs no text, so it needs no CLIP: networks that were trained on images alone tell more (PatchCore, Roth et
al., CVPR 2022; AnomalyDINO, Damm et al., WACV 2025).
"""

from abc import ABC, abstractmethod

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

SEPARATE_WEIGHT = 0.25
"""Weight of the layers' own distances beside that of all layers together."""


class TokenSource(ABC):
    """Where the tokens that are compared come from.

    Attributes:
        grids: Rows and columns of the tokens of an image, at each layer.
        weights: Weight of each layer's distances in their sum.
        blur_sigma: Smoothing of the distances, in tokens of the finest grid.
        needs_text: Whether the tokens come with what the text says of an image.
    """

    grids: list[tuple[int, int]]
    weights: list[float]
    blur_sigma = 0.5
    needs_text = False

    @abstractmethod
    def tokens(self, images: Tensor, evidence: TextEvidence | None) -> list[Tensor]:
        """Tokens ``(B, L, C)``, in full precision, one tensor a layer, of images ``(B, 3, H, W)`` as the scorer takes them."""


class OwnTokens(TokenSource):
    """The backbone's tokens, of its grid and a number of layers, before the projectors, whose GRN rescales channels by image.

    Unit tokens less their image's mean: what all tokens of an image share (its colour, its light) is no anomaly.
    """

    needs_text = True

    def __init__(self, grid: tuple[int, int], layers: int) -> None:
        self.grids, self.weights = [grid] * layers, [1 / layers] * layers

    def tokens(self, images: Tensor, evidence: TextEvidence | None) -> list[Tensor]:
        """See `TokenSource.tokens`."""
        del images
        if evidence is None:
            raise ValueError("the backbone's own tokens come with what the text says of an image")
        units = [unit(tap.float()) for tap in evidence.tokens]
        return [tokens - tokens.mean(dim=1, keepdim=True) for tokens in units]


class TowerTokens(TokenSource):
    """Feature vectors of a second network, read in two ways whose distances are added.

    Unit vectors of each layer on its own grid, of smaller images, find what differs in kind, however weak: scratches on a
    surface. The vectors of all layers together, as PatchCore joins them, of larger images, keep their lengths and, by the zeros
    around an image, their place: they find what is bent or missing.

    The scorer's images have been normalised with ``mean`` and ``std`` ``(3, 1, 1)``, which is undone.
    """

    blur_sigma = 1.25  # its tokens are averages of their neighbourhood, and no sharper

    def __init__(self, tower: FeatureTower, mean: Tensor, std: Tensor) -> None:
        self.tower, self.mean, self.std = tower, mean, std
        with torch.no_grad():
            small, _ = self._maps(torch.zeros(1, 3, *tower.image_size, device=tower.mean.device))
        self.grids = [(each.shape[-2], each.shape[-1]) for each in (*small, small[0])]
        self.weights = [*[SEPARATE_WEIGHT / len(small)] * len(small), 1.0]

    def tokens(self, images: Tensor, evidence: TextEvidence | None) -> list[Tensor]:
        """See `TokenSource.tokens`: those of each layer, and those of all layers together."""
        del evidence
        small, large = self._maps(images.float() * self.std.to(images) + self.mean.to(images))
        # Of all layers zeros count at the border, which tells a token how near it is.
        pooled = [resize_bilinear(_averaged(each, zeros_count=True), self.grids[-1]) for each in large]
        coarse = [min(each.shape[-2:]) <= MAX_COARSE_GRID for each in small]
        own = [each if stays else _averaged(each) for each, stays in zip(small, coarse, strict=True)]
        return [*(unit(_flat(each)) for each in own), _flat(torch.cat(pooled, dim=1))]

    def _maps(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Feature maps of images in [0, 1], as small and as large as the network sees them."""
        small, large = self.tower.reduced_size, self.tower.image_size
        maps = {size: [each.float() for each in self.tower(resize_bilinear(images, size))] for size in {small, large}}
        return maps[small], maps[large]


def _averaged(features: Tensor, *, zeros_count: bool = False) -> Tensor:
    """Feature maps averaged over a neighbourhood; zeros around an image may count."""
    return functional.avg_pool2d(features, NEIGHBOURHOOD, 1, NEIGHBOURHOOD // 2, count_include_pad=zeros_count)


def _flat(features: Tensor) -> Tensor:
    """Feature maps ``(B, C, rows, columns)`` as tokens ``(B, L, C)``."""
    return features.flatten(2).transpose(1, 2)
