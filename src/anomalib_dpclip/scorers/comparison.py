"""What scoring by good images and by an unlabelled batch have in common: tokens, distances as maps, and their fusion."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from anomalib.data import InferenceBatch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2.functional import gaussian_blur

from anomalib_dpclip.files.precision import full_precision
from anomalib_dpclip.method.torch_model import TextEvidence
from anomalib_dpclip.scorers.fusion import Fusion, unit_interval
from anomalib_dpclip.scorers.text_scorer import TextScorer
from anomalib_dpclip.scorers.token_source import OwnTokens, Tokens, TokenSource


class Comparison:
    """Compares images by tokens, beside the text.

    Args:
        text: Scores by the text.
        source: Where the tokens that are compared come from.
    """

    def __init__(self, text: TextScorer, source: TokenSource) -> None:
        self.text, self.source = text, source

    def encode(self, images: Tensor, anchors: Tensor) -> tuple[TextEvidence, Tokens]:
        """What the text says, and the tokens to compare.

        Args:
            images: Normalised images ``(B, 3, H, W)`` of the scorer's size.
            anchors: Text anchors.
        """
        painted = self.text.region.paint_over(images)
        evidence = self.text.evidence(painted, anchors)
        return evidence, self.source.tokens(painted, evidence)

    def tokens_alone(self, images: Tensor) -> Tokens | None:
        """The tokens to compare, where a second network gives them without the backbone; else ``None``."""
        painted = self.text.region.paint_over(images)
        return None if isinstance(self.source, OwnTokens) else self.source.tokens(painted, None)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the finest tokens."""
        return self.source.grids[0]

    def combined(self, separate: Sequence[Tensor], joint: Tensor | None) -> Tensor:
        """Distances on the finest grid ``(B, rows, columns)``: the mean of the layers', and the joint ones as much again.

        Args:
            separate: Distances ``(B, L)``, one tensor a layer.
            joint: Distances ``(B, L)`` of all layers together, on the finest grid; ``None`` for none.
        """
        grids = zip(separate, self.source.grids, strict=True)
        mean = torch.stack([_resized(each.unflatten(-1, grid), self.grid) for each, grid in grids]).mean(dim=0)
        return mean if joint is None else mean + joint.unflatten(-1, self.grid)

    def margin(self, evidence: TextEvidence) -> Tensor:
        """The text's margins, blurred, on the grid of the distances ``(B, rows, columns)``."""
        blurred = self.text.blurred(evidence.margin)
        return _resized(blurred, self.grid)

    def predict(self, fusion: Fusion, margin: Tensor | None, score: Tensor | None, distance: Tensor) -> InferenceBatch:
        """Maps and image scores of what was found.

        Args:
            fusion: How it is fused.
            margin: The text's margins, as `margin` gives them; ``None`` where they count nothing.
            score: Detection scores ``(B,)``; ``None`` where they count nothing.
            distance: Distances as `combined` gives them.
        """
        evidence = fusion.map_evidence(margin, distance)
        region = self.text.region
        tokens: Any = region.tokens(self.grid)
        if tokens is not None:
            evidence = torch.where(tokens, evidence, evidence.amin(dim=(-2, -1), keepdim=True))
        # The class token sees the whole image; the detection projector adds nothing where the target is known.
        known = score if self.text.model.detection == "class_token" else None
        image = unit_interval(fusion.image_evidence(evidence, known))
        smooth = region.smooth(unit_interval(evidence), self._blur).unsqueeze(1)
        maps = functional.interpolate(smooth, self.text.image_size, mode="bilinear", align_corners=False).squeeze(1)
        return InferenceBatch(anomaly_map=region.hide(maps), pred_score=image)

    def _blur(self, values: Tensor) -> Tensor:
        sigma = self.source.blur_sigma
        side = 2 * math.ceil(2 * sigma) + 1
        with full_precision(values):
            return gaussian_blur(values.unsqueeze(1), [side, side], [sigma, sigma]).squeeze(1)


def _resized(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """Values of tokens ``(B, rows, columns)`` on another grid."""
    if tuple(values.shape[-2:]) == grid:
        return values
    return functional.interpolate(values.unsqueeze(1), grid, mode="bilinear", align_corners=False).squeeze(1)
