"""What photos showed that were called anomalous wrongly: looked for in the same place again, and then not judged.

No part of DP-CLIP's paper. A label that a line prints on its parts comes at about the same place, and looks about the same. A
token that is nearer to what corrections showed in its place than to anything that the memory of good photos knows is explained
by them; explained tokens, and those beside them, are left out of the map as if they were ignored.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from anomalib_dpclip.method.precision import full_precision

NEARER = 0.9
"""Share of the distance to the memory below which a token is explained."""


class Corrections(nn.Module):
    """Tokens of corrections by the place where they were called anomalous.

    Args:
        places: Number of each token in its image ``(N,)``, at least one.
        tokens: Centred tokens of each tap ``(T, N, C)``.
        photos: How many photos they are of.

    Attributes:
        places: The different places ``(P,)``.
        tokens: What was seen there ``(T, P, K, C)`` in half precision.
        seen: Which of the K are there ``(P, K)``; places have different numbers of them.
    """

    places: Tensor
    tokens: Tensor
    seen: Tensor
    photos: Tensor

    def __init__(self, places: Tensor, tokens: Tensor, photos: int = 0) -> None:
        super().__init__()
        different, index, counts = places.unique(return_inverse=True, return_counts=True)
        shape = (tokens.shape[0], len(different), int(counts.max()), tokens.shape[2])
        stored = torch.zeros(shape, dtype=torch.half, device=tokens.device)
        seen = torch.zeros(stored.shape[1:3], dtype=torch.bool, device=tokens.device)
        for place, count in enumerate(counts.tolist()):
            stored[:, place, :count] = tokens[:, index == place].half()
            seen[place, :count] = True
        self.register_buffer("places", different)
        self.register_buffer("tokens", stored)
        self.register_buffer("seen", seen)
        self.register_buffer("photos", torch.tensor(photos, device=tokens.device))

    def forward(self, tokens: Tensor, distance: Tensor, grid: tuple[int, int]) -> Tensor:
        """Which tokens are explained ``(B, rows, columns)`` bool, neighbours included.

        Args:
            tokens: Centred tokens ``(B, T, L, C)``.
            distance: Of each to the memory ``(B, L)``.
            grid: Rows and columns of the tokens.
        """
        near = torch.stack([self._nearest(tokens[:, tap], known) for tap, known in enumerate(self.tokens)]).mean(0)
        explained = (near < NEARER * distance[:, self.places]).to(distance.dtype)
        on_grid = torch.zeros_like(distance).index_copy(1, self.places, explained).unflatten(1, grid).unsqueeze(1)
        return functional.max_pool2d(on_grid, 3, 1, 1).squeeze(1) > 0

    def _nearest(self, tokens: Tensor, known: Tensor) -> Tensor:
        """Distance ``(B, P)`` of the tokens ``(B, L, C)`` at the places to the nearest of each one's own ``(P, K, C)``."""
        here, there = tokens[:, self.places], known.to(tokens.dtype)
        with full_precision(tokens):
            products = torch.einsum("bpc,pkc->bpk", here, there)
        squares = here.square().sum(-1, keepdim=True) - 2 * products + there.square().sum(-1)
        return squares.masked_fill(~self.seen, torch.inf).amin(-1).clamp_min(0).sqrt()

    def joined(self, other: "Corrections") -> "Corrections":
        """Both as one."""
        parts = [self, other]
        places = torch.cat([part.places.unsqueeze(1).expand_as(part.seen)[part.seen] for part in parts])
        tokens = torch.cat([part.tokens[:, part.seen] for part in parts], dim=1)
        return Corrections(places, tokens, sum(int(part.photos) for part in parts))
