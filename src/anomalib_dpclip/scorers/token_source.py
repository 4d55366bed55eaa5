"""Which tokens good images and an unlabelled batch are compared by: the backbone's own, or a second network's.

The comparison needs no text, so it needs no CLIP: networks that were trained on images alone tell more (PatchCore, Roth et
al., CVPR 2022; AnomalyDINO, Damm et al., WACV 2025).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from anomalib_dpclip.clip.feature_tower import FeatureTower
from anomalib_dpclip.method.adapters import unit
from anomalib_dpclip.method.torch_model import TextEvidence

NEIGHBOURHOOD = 3
"""Side of the neighbourhood that a feature is averaged over, as in PatchCore."""


class TokenSource(ABC):
    """Where the tokens that are compared come from.

    Attributes:
        grid: Rows and columns of the tokens of an image.
    """

    grid: tuple[int, int]

    @abstractmethod
    def tokens(self, images: Tensor, evidence: TextEvidence | None) -> list[Tensor]:
        """Tokens ``(B, L, C)``, one tensor a layer, in full precision.

        Args:
            images: Images ``(B, 3, H, W)`` as the scorer takes them.
            evidence: What the text says of them, with the backbone's own tokens; only those need it.
        """


class OwnTokens(TokenSource):
    """The backbone's tokens before the projectors, whose GRN rescales channels image by image.

    Unit tokens less their image's mean: what all tokens of an image share (its colour, its light) is no anomaly.

    Args:
        grid: Rows and columns of the backbone's tokens.
    """

    def __init__(self, grid: tuple[int, int]) -> None:
        self.grid = grid

    def tokens(self, images: Tensor, evidence: TextEvidence | None) -> list[Tensor]:
        """See `TokenSource.tokens`."""
        del images
        if evidence is None:
            raise ValueError("the backbone's own tokens come with what the text says of an image")
        units = [unit(tap.float()) for tap in evidence.tokens]
        return [tokens - tokens.mean(dim=1, keepdim=True) for tokens in units]


class TowerTokens(TokenSource):
    """Feature maps of a second network, averaged over a neighbourhood, on the grid of the finest of them.

    Args:
        tower: The network.
        mean: Mean of the image channels that the scorer's images were normalised with ``(3, 1, 1)``.
        std: Standard deviation of the image channels, likewise.
    """

    def __init__(self, tower: FeatureTower, mean: Sequence[float], std: Sequence[float]) -> None:
        self.tower = tower
        self.mean, self.std = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))
        with torch.no_grad():
            first = tower(torch.zeros(1, 3, *tower.image_size, device=tower.mean.device))[0]
        self.grid = (int(first.shape[-2]), int(first.shape[-1]))

    def tokens(self, images: Tensor, evidence: TextEvidence | None) -> list[Tensor]:
        """See `TokenSource.tokens`."""
        del evidence
        plain = images.float() * self.std.to(images) + self.mean.to(images)
        if tuple(plain.shape[-2:]) != self.tower.image_size:
            plain = functional.interpolate(plain, self.tower.image_size, mode="bilinear", antialias=True)
        return [self._tokens(features.float()) for features in self.tower(plain)]

    def _tokens(self, features: Tensor) -> Tensor:
        smooth = functional.avg_pool2d(features, NEIGHBOURHOOD, stride=1, padding=NEIGHBOURHOOD // 2, count_include_pad=False)
        if tuple(smooth.shape[-2:]) != self.grid:
            smooth = functional.interpolate(smooth, self.grid, mode="bilinear", align_corners=False)
        return smooth.flatten(2).transpose(1, 2)
