"""Scoring by good images of the target: how far each token is from its nearest neighbour among theirs.

PatchCore (Roth et al., CVPR 2022): a memory bank of patch features, thinned, and distances to the nearest.
"""

from collections.abc import Sequence

import torch
from anomalib.data import InferenceBatch
from torch import Tensor, nn

from anomalib_dpclip.files.precision import full_precision
from anomalib_dpclip.scorers.comparison import Comparison, Evidence
from anomalib_dpclip.scorers.fusion import Fusion
from anomalib_dpclip.scorers.scorer import Scorer
from anomalib_dpclip.visualization.likeness import Likeness

CHUNK = 4096
"""Tokens of the memory that one matrix product compares with: it bounds what a comparison takes, whatever the memory."""

MIN_SPARSE_GRID = 24
"""Rows of a grid from which neighbouring tokens are so much alike that one in four is enough."""

MIN_SPREAD = 1e-6
"""Least spread of tokens: those of an image of one colour have none."""


def nearest_distance(tokens: Tensor, memory: Tensor) -> Tensor:
    """Euclidean distance ``(N,)`` of each token ``(N, C)``, in full precision, to the nearest of a memory ``(M, C)``."""
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


def sparse_numbers(numbers: Tensor, grid: tuple[int, int]) -> Tensor:
    """Which of the scored tokens of an image ``(L,)`` are compared with: of a fine grid every second row and column."""
    if min(grid) < MIN_SPARSE_GRID:
        return numbers
    sparse = numbers[(numbers // grid[1] % 2 == 0) & (numbers % grid[1] % 2 == 0)]
    return sparse if len(sparse) else numbers


def spread_of(tokens: Tensor) -> Tensor:
    """Mean distance of tokens ``(..., C)`` from their mean ``()``."""
    flat = tokens.flatten(0, -2).float()
    return (flat - flat.mean(dim=0)).norm(dim=-1).mean().clamp_min(MIN_SPREAD)


class TokenMemory(nn.Module):
    """Tokens of a number of good images, `spread_of` them at each layer ``(T,)``, both as a checkpoint keeps them."""

    spread: Tensor
    photos: Tensor

    def __init__(self, layers: Sequence[Tensor], spread: Tensor, photos: int = 0) -> None:
        super().__init__()
        self.count = len(layers)
        for number, tokens in enumerate(layers):
            self.register_buffer(f"layer{number}", tokens.half())
        self.register_buffer("spread", spread)
        self.register_buffer("photos", torch.tensor(photos, device=spread.device))

    @property
    def layers(self) -> list[Tensor]:
        """Tokens ``(M, C)`` in half precision, one tensor a layer."""
        return [getattr(self, f"layer{number}") for number in range(self.count)]

    def forward(self, tokens: Sequence[Tensor]) -> list[Tensor]:
        """Distances ``(B, L)`` of tokens ``(B, L, C)`` to the nearest ones, in units of the spread, one tensor a layer."""
        return [
            nearest_distance(each.flatten(0, 1).float(), known).view(each.shape[:2]) / spread
            for each, known, spread in zip(tokens, self.layers, self.spread, strict=True)
        ]


class MemoryState(nn.Module):
    """All that a checkpoint keeps of a `MemoryScorer`.

    Thresholds can be set from the ``scores``: `ImageStatistics`, as columns ``(N, 4)``, of good images scored by the others, as
    they are (label 0) and damaged (label 1).
    """

    scores: Tensor

    def __init__(self, memory: TokenMemory, fusion: Fusion, scores: Tensor) -> None:
        super().__init__()
        self.memory, self.fusion = memory, fusion
        self.register_buffer("scores", scores.float())


class MemoryScorer(Scorer):
    """Distances to a memory of good images, and the text beside them.

    Attributes:
        is_stored: Whether a checkpoint brought the memory: it then stays, with the thresholds that belong to it.
        likeness: The good images by name, where they came from files in this process.
    """

    name = "memory"
    likeness: Likeness | None = None

    def __init__(self, comparison: Comparison, state: MemoryState, *, is_stored: bool = False) -> None:
        self.comparison, self.is_stored = comparison, is_stored
        self.state: MemoryState = state

    @property
    def image_size(self) -> tuple[int, int]:
        """See `Scorer.image_size`."""
        return self.comparison.text.image_size

    def score(self, images: Tensor, anchors: Tensor, paths: Sequence[str] | None = None) -> InferenceBatch:
        """See `Scorer.score`."""
        del paths
        memory, fusion = self.state.memory, self.state.fusion
        tokens, margin, score = self.comparison.encode(images, anchors, with_text=fusion.uses_text)
        return self.comparison.predict(fusion, Evidence(margin, score, self.comparison.combined(memory(tokens))))
