"""What scoring by good images and by an unlabelled batch have in common: tokens, distances as maps, and their fusion."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from anomalib.data import InferenceBatch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2.functional import gaussian_blur

from anomalib_dpclip.files.precision import full_precision
from anomalib_dpclip.scorers.fusion import Fusion, unit_interval, usual
from anomalib_dpclip.scorers.text_scorer import TextScorer
from anomalib_dpclip.scorers.token_source import TokenSource

Encoded: TypeAlias = tuple[list[Tensor], Tensor | None, Tensor | None]
"""Tokens ``(B, L, C)``, one tensor a layer, and margin and score as in `Evidence`."""


class Evidence(NamedTuple):
    """What tells normal from anomalous.

    Attributes:
        margin: The text's margins, blurred, on the finest grid ``(B, rows, columns)``; ``None`` where they count nothing.
        score: Detection scores ``(B,)``; ``None`` where they count nothing.
        distance: Distances on the finest grid ``(B, rows, columns)``.
    """

    margin: Tensor | None
    score: Tensor | None
    distance: Tensor

    def of(self, numbers: Sequence[int] | Tensor) -> "Evidence":
        """That of some of the images."""
        known: list[Any] = [None if each is None else each[numbers] for each in self]
        return Evidence(*known)


class Comparison:
    """Compares images by the tokens of a source, beside the text."""

    def __init__(self, text: TextScorer, source: TokenSource) -> None:
        self.text, self.source = text, source
        self.grid = max(source.grids)  # rows and columns of the finest tokens

    def encode(self, images: Tensor, anchors: Tensor, *, with_text: bool = True) -> Encoded:
        """What is found of images, as `Scorer.score` takes them, before they are compared.

        Without the text, where it counts nothing, the backbone need not run if a second network gives the tokens.
        """
        painted = self.text.region.paint_over(images)
        if not with_text and not self.source.needs_text:
            return self.source.tokens(painted, None), None, None
        evidence = self.text.evidence(painted, anchors)
        margin = _resized(self.text.blurred(evidence.margin), self.grid)
        return self.source.tokens(painted, evidence), margin, evidence.score

    def combined(self, distances: Sequence[Tensor]) -> Tensor:
        """Distances ``(B, L)``, one tensor a layer, as their weighted sum on the finest grid ``(B, rows, columns)``."""
        maps = [
            weight * _resized(each.unflatten(-1, grid), self.grid)
            for each, grid, weight in zip(distances, self.source.grids, self.source.weights, strict=True)
        ]
        return torch.stack(maps).sum(dim=0)

    def predict(self, fusion: Fusion, found: Evidence) -> InferenceBatch:
        """Maps and image scores of what was found, as `Scorer.score` gives them."""
        evidence = fusion.map_evidence(found.margin, found.distance)
        region = self.text.region
        tokens = region.tokens(self.grid)
        if tokens is not None:
            evidence = torch.where(tokens, evidence, evidence.amin(dim=(-2, -1), keepdim=True))
        # The class token sees the whole image; the detection projector adds nothing where the target is known.
        score = found.score if self.text.model.detection == "class_token" else None
        image = unit_interval(fusion.image_evidence(evidence, score))
        maps = _resized(region.smooth(unit_interval(evidence), self._blur), self.text.image_size)
        return InferenceBatch(anomaly_map=region.hide(maps), pred_score=image)

    def fusion(self, normal: Sequence[Evidence], text_weight: float) -> Fusion:
        """How evidence is fused, in units of what is usual of that of normal images, at least one batch, where it is scored."""
        margin, score, distance = (torch.cat(each) for each in zip(*normal, strict=True))
        kept = self.text.region.token_numbers(self.grid).to(distance.device)
        return Fusion(usual(margin.flatten(1)[:, kept]), usual(distance.flatten(1)[:, kept]), usual(score), text_weight)

    def image_rows(self, fusion: Fusion, found: Evidence, label: int) -> Tensor:
        """Rows of `ImageStatistics` ``(B, 4)`` of images of one label."""
        scored = self.text.region.scored
        raw = self.predict(fusion, found)
        maps, score = torch.as_tensor(raw.anomaly_map), torch.as_tensor(raw.pred_score)
        values = maps.flatten(1) if scored is None else maps[:, scored]
        return torch.stack([*values.aminmax(dim=1), score, torch.full_like(score, label)], dim=1)

    def _blur(self, values: Tensor) -> Tensor:
        sigma = self.source.blur_sigma
        side = 2 * math.ceil(2 * sigma) + 1
        with full_precision(values):
            return gaussian_blur(values.unsqueeze(1), [side, side], [sigma, sigma]).squeeze(1)


def _resized(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Values ``(B, rows, columns)`` on another grid."""
    if tuple(values.shape[-2:]) == size:
        return values
    return functional.interpolate(values.unsqueeze(1), size, mode="bilinear", align_corners=False).squeeze(1)
