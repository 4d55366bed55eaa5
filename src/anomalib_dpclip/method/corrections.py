"""What photos showed that were called anomalous wrongly: recognised in its place again, and then not judged.

No part of DP-CLIP's paper. A label that a line prints on its parts comes at about the same place and looks about the same, but
its number is never twice the same, so its tokens differ: it is recognised as a whole. It is there if every token at its place
is unlike the good photos, and if all of them together look like those that corrections showed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

CORE = 0.65
"""Share of the views of a nuisance in which a place is to blame, above which it belongs to the nuisance wherever it lies."""

LEAST = 0.6
"""Share of the least distance to the memory that corrections had at its places, which a nuisance must have there too."""

ALIKE = 1.2
"""Times the farthest look of a correction from the others' looks, within which a nuisance is recognised."""


class Nuisance(nn.Module):
    """Something that came at the same place of some photos.

    Args:
        blame: Share of each photo's views in which each token was to blame ``(P, L)``.
        distance: Of each photo's tokens to the memory ``(P, L)``.
        looks: Mean of the tokens to blame in each view ``(P, V, T, C)``, that of the photo itself first.
        grid: Rows and columns of the tokens.
    """

    core: Tensor
    hidden: Tensor
    looks: Tensor
    least: Tensor
    reach: Tensor

    def __init__(self, blame: Tensor, distance: Tensor, looks: Tensor, grid: tuple[int, int]) -> None:
        super().__init__()
        places = core(blame)
        beside = functional.max_pool2d(places.float().view(1, 1, *grid), 3, 1, 1).flatten() > 0
        known = {
            "core": places.nonzero().squeeze(1),
            "hidden": beside,
            "looks": looks.flatten(0, 1),
            "least": LEAST * distance[:, places].min(),
            "reach": ALIKE * _farthest(looks),
        }
        for name, value in known.items():  # made of what `Corrections` keeps
            self.register_buffer(name, value, persistent=False)

    def forward(self, tokens: Tensor, means: Tensor, distance: Tensor) -> Tensor:
        """Which tokens are explained ``(B, L)`` bool: its own and those beside them, where it is there; else none.

        Args:
            tokens: Centred tokens ``(B, T, L, C)``.
            means: What they lack ``(B, T, C)``.
            distance: Of each to the memory ``(B, L)``.
        """
        look = tokens[:, :, self.core].mean(dim=2) + means
        nearest = look_distance(look.unsqueeze(1), self.looks.to(look)).amin(dim=1)
        is_there = (nearest <= self.reach) & (distance[:, self.core].amin(dim=1) >= self.least)
        return is_there.unsqueeze(1) & self.hidden


class Corrections(nn.Module):
    """What is known of photos that were called anomalous wrongly. Those of one nuisance are recognised together.

    Args:
        blame: Share of each photo's views in which each token was to blame ``(P, L)``.
        distance: Of each photo's tokens to the memory ``(P, L)``.
        looks: Mean of the tokens to blame in each view ``(P, V, T, C)``, that of the photo itself first.
        standing: Detection score that stands for a map whose peak is 0, and for one whose peak is 1 ``(2,)``.
        thresholds: On image scores and on maps, before the first correction ``(2,)``.
        grid: Rows and columns of the tokens.

    Attributes:
        nuisances: What the photos show.
    """

    blame: Tensor
    distance: Tensor
    looks: Tensor
    standing: Tensor
    thresholds: Tensor

    def __init__(
        self, blame: Tensor, distance: Tensor, looks: Tensor, standing: Tensor, thresholds: Tensor, grid: tuple[int, int]
    ) -> None:
        super().__init__()
        self.grid = grid
        self.register_buffer("blame", blame)
        self.register_buffer("distance", distance)
        self.register_buffer("looks", looks.half())
        self.register_buffer("standing", standing)
        self.register_buffer("thresholds", thresholds)
        groups = _overlapping(blame)
        self.nuisances = nn.ModuleList(Nuisance(blame[of], distance[of], self.looks[of].float(), grid) for of in groups)

    def forward(self, tokens: Tensor, means: Tensor, distance: Tensor) -> Tensor:
        """Which tokens are explained ``(B, rows, columns)`` bool.

        Args:
            tokens: Centred tokens ``(B, T, L, C)``.
            means: What they lack ``(B, T, C)``.
            distance: Of each to the memory ``(B, L)``.
        """
        explained = torch.stack([nuisance(tokens, means, distance) for nuisance in self.nuisances])
        return explained.any(dim=0).unflatten(1, self.grid)

    def without_explained(self, score: Tensor, peak: Tensor) -> Tensor:
        """Detection scores ``(B,)`` of images in which something is explained.

        The class token has seen that too: the peak ``(B,)`` of what is left of the map stands for it, where it is lower.
        """
        low, high = self.standing
        return torch.minimum(score, (low + peak * (high - low)).clamp(0, 1))

    def joined(self, other: "Corrections") -> "Corrections":
        """Both as one, the other being later."""
        blame, distance = torch.cat([self.blame, other.blame]), torch.cat([self.distance, other.distance])
        looks = torch.cat([self.looks, other.looks])
        return Corrections(blame, distance, looks, other.standing, self.thresholds, self.grid)


def core(blame: Tensor) -> Tensor:
    """Places ``(L,)`` bool that are to blame in enough views of photos, by the share of each photo's ``(P, L)``."""
    share = blame.mean(dim=0)
    return (share >= CORE) | (share == share.max())


def look_distance(looks: Tensor, others: Tensor) -> Tensor:
    """Euclidean distance of looks ``(..., T, C)``, averaged over the taps ``(...)``."""
    return (looks - others).norm(dim=-1).mean(dim=-1)


def _farthest(looks: Tensor) -> Tensor:
    """How far at most a photo's own look is from all that the others showed, or one photo's own views are from itself."""
    if len(looks) == 1:
        return look_distance(looks[0, 1:], looks[0, 0]).max()
    others = [torch.cat([looks[:index], looks[index + 1 :]]).flatten(0, 1) for index in range(len(looks))]
    return torch.stack([look_distance(own[0], other).min() for own, other in zip(looks, others, strict=True)]).max()


def _overlapping(blame: Tensor) -> Sequence[list[int]]:
    """Numbers of the photos of each nuisance: a photo is of the one whose places overlap most with its own, or of a new one."""
    groups: list[list[int]] = []
    for index in range(len(blame)):
        own = core(blame[index, None])
        common = [int((own & core(blame[of])).sum()) for of in groups]
        if any(common):
            groups[common.index(max(common))].append(index)
        else:
            groups.append([index])
    return groups
