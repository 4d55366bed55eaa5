"""Figures of an inspection line: what is thrown away in vain when few defects may escape, and the reverse.

The threshold is the one that serves the images tested best, as in F1-max: they say what scores could do, not what a threshold
that was set beforehand will do.
"""

from fractions import Fraction
from functools import partial

import torch
from anomalib.metrics import AnomalibMetric

from anomalib_dpclip.metrics.image_metrics import ImageMetric

LINE_SHARES = (0.02, 0.05, 0.10)
"""Shares of escape, and of overkill, at which the other is told."""


def overkill(scores: torch.Tensor, labels: torch.Tensor, escape: float) -> torch.Tensor:
    """Least share of normal images called anomalous where at most a share ``escape`` of the anomalous ones is missed.

    Args:
        scores: Image scores ``(N,)``.
        labels: 0 or 1 ``(N,)``, both at least once.
        escape: In [0, 1).

    Returns:
        Share in [0, 1], ``()``.

    Example:
        >>> overkill(torch.tensor([0.1, 0.6, 0.4, 0.9]), torch.tensor([0, 0, 1, 1]), 0.02)
        tensor(0.5000)
    """
    return _price(scores[labels == 1], scores[labels == 0], escape)


def escape(scores: torch.Tensor, labels: torch.Tensor, overkill: float) -> torch.Tensor:
    """Least share of anomalous images missed where at most a share ``overkill`` of the normal ones is called anomalous.

    Args:
        scores: Image scores ``(N,)``.
        labels: 0 or 1 ``(N,)``, both at least once.
        overkill: In [0, 1).

    Returns:
        Share in [0, 1], ``()``.
    """
    return _price(-scores[labels == 0], -scores[labels == 1], overkill)


def _price(limited: torch.Tensor, other: torch.Tensor, share: float) -> torch.Tensor:
    """Share of the scores ``(M,)`` that reach the threshold which leaves at most a share of the limited ones ``(N,)`` below."""
    threshold = limited.sort().values[_allowed(share, len(limited))]
    return (other >= threshold).float().mean()


def _allowed(share: float, images: int) -> int:
    """How many of so many images a share allows: 0.29 of 100 are 29, whatever binary fractions make of 0.29."""
    return int(Fraction(str(share)) * images)


def line_metrics() -> list[AnomalibMetric]:
    """New metrics for anomalib's `Evaluator`: overkill at 2, 5 and 10 % escape (``overkill_at_2``), and the reverse.

    Each is NaN where one kind of image is missing.
    """
    return [
        *(ImageMetric(f"overkill_at_{100 * share:g}", partial(overkill, escape=share)) for share in LINE_SHARES),
        *(ImageMetric(f"escape_at_{100 * share:g}", partial(escape, overkill=share)) for share in LINE_SHARES),
    ]
