"""How much the text counts beside distances, learned from labelled images: a weight is worth what it does for unseen ones.

Where a backbone's text knows what its images show, the plain sum of both evidences is best (UniADet, APRIL-GAN); where it does
not, any text blurs what distances find. The auxiliary set's labels tell which it is.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_average_precision

from anomalib_dpclip.scorers.comparison import Comparison, Evidence
from anomalib_dpclip.scorers.fusion import Fusion

WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Weights that are tried."""

PLAIN_SUM = 1.0
"""Weight where nothing was learned."""

COMPARED_ROWS = 64
"""Rows of a map that are enough to tell weights apart."""

OWN_TOKENS = "own"
"""Stands for the backbone's own tokens where learned weights say which network's features they were learned with."""


class Episode(NamedTuple):
    """Labelled images of one class, scored by a few good images of it."""

    evidence: Evidence
    fusion: Fusion  # what is usual on the good images
    mask: Tensor  # (N, H, W)
    label: Tensor  # (N,)


def best_weight(comparison: Comparison, episodes: Sequence[Episode]) -> float:
    """The least weight whose average precision is within one standard error of the best one's, of at least one episode.

    The text has learned from these very images, and is better on them than on others.
    """
    return least_equivalent([[_precision(comparison, episode, weight) for episode in episodes] for weight in WEIGHTS])


def least_equivalent(quality: Sequence[Sequence[float]]) -> float:
    """By the quality of each episode, for each weight: the first that is worse than the best by no more than the error of that.

    Example:
        >>> least_equivalent([[0.1, 0.2], [0.6, 0.8], [0.7, 0.8], [0.5, 0.5], [0.4, 0.5], [0.3, 0.5], [0.2, 0.5]])
        0.02
    """
    values = torch.tensor(quality, dtype=torch.double)
    lost = values[values.mean(dim=1).argmax()] - values
    error = lost.std(dim=1, correction=0) / max(len(quality[0]) - 1, 1) ** 0.5
    return WEIGHTS[int((lost.mean(dim=1) <= error).nonzero()[0])]


def _precision(comparison: Comparison, episode: Episode, weight: float) -> float:
    """Average precision of an episode's pixels plus that of its images, in [0, 2]."""
    known = episode.fusion
    raw = comparison.predict(Fusion(known.text, known.distance, known.score, weight), episode.evidence)
    step = max(min(episode.mask.shape[-2:]) // COMPARED_ROWS, 1)
    maps, masks = (each[:, ::step, ::step].flatten() for each in (torch.as_tensor(raw.anomaly_map), episode.mask))
    pixels = binary_average_precision(maps, masks.long())
    return float(pixels + binary_average_precision(torch.as_tensor(raw.pred_score), episode.label))


def weight_for(weights: Mapping[str, float], count: int) -> float:
    """The weight that was learned with the nearest number of good images; the plain sum where none was.

    Example:
        >>> weight_for({"1": 0.5, "4": 0.2}, 8)  # by numbers of good images, which plain data has as text
        0.2
    """
    known = {int(number): weight for number, weight in weights.items()}
    return known[min(known, key=lambda number: abs(number - count))] if known else PLAIN_SUM
