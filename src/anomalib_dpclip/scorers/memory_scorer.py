"""Scoring by good images of the target: how far each token is from its nearest neighbour among theirs.

PatchCore (Roth et al., CVPR 2022): a memory bank of patch features, thinned to a coreset, and distances to the nearest.
"""

from collections.abc import Sequence

import torch
from anomalib.data import InferenceBatch
from torch import Tensor, nn

from anomalib_dpclip.files.precision import full_precision
from anomalib_dpclip.scorers.comparison import Comparison
from anomalib_dpclip.scorers.fusion import Fusion
from anomalib_dpclip.scorers.scorer import Scorer

CHUNK = 4096
"""Tokens of the memory that one matrix product compares with: it bounds what a comparison takes, whatever the memory."""

MIN_SCALE = 1e-6
"""Least typical distance of a layer: good images that are all alike have none."""


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


def layer_distances(tokens: Sequence[Tensor], memory: Sequence[Tensor]) -> list[Tensor]:
    """`nearest_distance` of each token ``(B, L)``, one tensor a layer.

    Args:
        tokens: Tokens ``(B, L, C)``, one tensor a layer.
        memory: Tokens of the memory ``(M, C)``, one tensor a layer.
    """
    return [
        nearest_distance(each.flatten(0, 1), known).view(each.shape[:2]) for each, known in zip(tokens, memory, strict=True)
    ]


class TokenMemory(nn.Module):
    """Tokens of good images in half precision, and what distances are typical of good images.

    Args:
        layers: Tokens ``(M, C)``, one tensor a layer.
        scale: Typical distance of a good image's token at each layer ``(T,)``.
        photos: Number of images that the tokens are of.
    """

    scale: Tensor
    photos: Tensor

    def __init__(self, layers: Sequence[Tensor], scale: Tensor | None = None, photos: int = 0) -> None:
        super().__init__()
        self.count = len(layers)
        for number, tokens in enumerate(layers):
            self.register_buffer(f"layer{number}", tokens.half())
        device = layers[0].device
        self.register_buffer("scale", torch.ones(len(layers), device=device) if scale is None else scale.clamp_min(MIN_SCALE))
        self.register_buffer("photos", torch.tensor(photos, device=device))

    @property
    def layers(self) -> list[Tensor]:
        """Tokens ``(M, C)``, one tensor a layer."""
        return [getattr(self, f"layer{number}") for number in range(self.count)]

    def forward(self, tokens: Sequence[Tensor]) -> list[Tensor]:
        """Distances ``(B, L)`` of tokens ``(B, L, C)``, one tensor a layer, in units of what is typical of good images."""
        return scaled(layer_distances(tokens, self.layers), self.scale)


def scaled(distances: Sequence[Tensor], scale: Tensor) -> list[Tensor]:
    """Distances, one tensor a layer, in units of what is typical at each layer ``(T,)``."""
    return [each / typical for each, typical in zip(distances, scale, strict=True)]


class MemoryState(nn.Module):
    """All that a checkpoint keeps of a `MemoryScorer`.

    Args:
        memory: Tokens of the good images.
        fusion: How distances and text are fused.
        scores: Statistics of good images scored by the others, as they are (label 0) and damaged (label 1), the columns of
            `ImageStatistics` ``(N, 4)``: thresholds can be set from them.
    """

    scores: Tensor

    def __init__(self, memory: TokenMemory, fusion: Fusion, scores: Tensor) -> None:
        super().__init__()
        self.memory, self.fusion = memory, fusion
        self.register_buffer("scores", scores.float())


class MemoryScorer(Scorer):
    """Distances to a memory of good images, and the text beside them.

    Args:
        comparison: Compares images by tokens.
        state: The memory, and how it is fused.
        is_stored: Whether a checkpoint brought it: it then stays, with the thresholds that belong to it.
    """

    name = "memory"

    def __init__(self, comparison: Comparison, state: MemoryState, *, is_stored: bool = False) -> None:
        self.comparison = comparison
        self.state: MemoryState = state
        self.is_stored = is_stored

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images that `score` takes."""
        return self.comparison.text.image_size

    def score(self, images: Tensor, anchors: Tensor, paths: Sequence[str] | None = None) -> InferenceBatch:
        """See `Scorer.score`."""
        del paths
        fusion = self.state.fusion
        tokens = None if fusion.uses_text else self.comparison.tokens_alone(images)
        if tokens is not None:  # the backbone need not run
            return self.comparison.predict(fusion, None, None, self.comparison.combined(self.state.memory(tokens)))
        evidence, tokens = self.comparison.encode(images, anchors)
        distance = self.comparison.combined(self.state.memory(tokens))
        return self.comparison.predict(fusion, self.comparison.margin(evidence), evidence.score, distance)
