"""Which good photo looks most like an image."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

SIDE = 16
"""Side that pictures are compared at: what they show, where, and in which light; not the texture."""


class Likeness:
    """Good photos ``(K, 3, H, W)``, as the scorer takes them, by the names of their files."""

    def __init__(self, paths: Sequence[str | Path], images: Tensor) -> None:
        self.names = [Path(path).name for path in paths]
        self.pictures = _small(images)

    def most_like(self, images: Tensor) -> list[str]:
        """Name of the photo with the nearest picture, of each image ``(B, 3, H, W)``."""
        nearest = torch.cdist(_small(images), self.pictures.to(images.device)).argmin(dim=1)
        return [self.names[index] for index in nearest.tolist()]


def _small(images: Tensor) -> Tensor:
    """Pictures as vectors ``(B, 3 SIDE SIDE)``."""
    return functional.adaptive_avg_pool2d(images.float(), SIDE).flatten(1)
