"""One evidence from two: what the text says of a token, and how far it is from what good images show.

Both are standardised by what is usual on normal tokens of the target and added, as UniADet and APRIL-GAN add a text map and a
distance map; their weights can be learned from labels of the auxiliary set.
"""

import torch
from torch import Tensor, nn

from anomalib_dpclip.post_processing.unlabelled import GAUSSIAN_MAD

MIN_DEVIATION = 1e-6
"""Least spread of an evidence: good images that are all alike have none."""

TOP_SHARE = 0.002
"""Share of an image's tokens, the highest, whose mean stands beside the map's peak in the image score."""

SATURATION = 20.0
"""Standardised evidence that becomes three quarters of the map's range."""


def usual(values: Tensor) -> Tensor:
    """What is usual of an evidence of any shape: median, and spread by the median absolute deviation ``(2,)``."""
    flat = values.flatten().float()
    median = flat.median()
    return torch.stack([median, (GAUSSIAN_MAD * (flat - median).abs().median()).clamp_min(MIN_DEVIATION)])


def standardised(values: Tensor, of: Tensor) -> Tensor:
    """Values of any shape in deviations from what is `usual`."""
    return (values - of[0]) / of[1]


def unit_interval(evidence: Tensor) -> Tensor:
    """Standardised evidence of any shape to (0, 1), strictly increasing: 0.5 is usual, and nothing saturates."""
    return 0.5 + 0.5 * evidence / (SATURATION + evidence.abs())


class Fusion(nn.Module):
    """Fuses text and distances by what is `usual` ``(2,)`` of margins, distances and detection scores, and a weight."""

    text: Tensor
    distance: Tensor
    score: Tensor
    text_weight: Tensor

    def __init__(self, text: Tensor, distance: Tensor, score: Tensor, text_weight: float) -> None:
        super().__init__()
        for name, value in (("text", text), ("distance", distance), ("score", score)):
            self.register_buffer(name, value.float().clone())
        self.uses_text = text_weight != 0
        self.register_buffer("text_weight", torch.tensor(float(text_weight), device=text.device))

    def map_evidence(self, margin: Tensor | None, distance: Tensor) -> Tensor:
        """Evidence of tokens ``(B, rows, columns)``, in deviations, from the margins and distances of an `Evidence`."""
        return self._with_text(standardised(distance, self.distance), margin, self.text)

    def image_evidence(self, evidence: Tensor, score: Tensor | None) -> Tensor:
        """Evidence of whole images ``(B,)``: the mean of the highest tokens of `map_evidence`, and the detection score's."""
        flat = evidence.flatten(1)
        top = flat.topk(max(1, round(TOP_SHARE * flat.shape[1])), dim=1).values.mean(dim=1)
        return self._with_text(top, score, self.score)

    def _with_text(self, evidence: Tensor, text: Tensor | None, of: Tensor) -> Tensor:
        if text is None or not self.uses_text:
            return evidence
        return evidence + self.text_weight * standardised(text, of)
