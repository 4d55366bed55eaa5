"""The conformal bound: a threshold that a new normal image exceeds at most at a given rate, whatever its distribution.

Split conformal prediction (Vovk, Gammerman, Shafer, *Algorithmic Learning in a Random World*, 2005; Lei et al., JASA 2018):
of n + 1 scores from one source the new one is as likely to have any rank, so it exceeds the k-th smallest of the n known ones
with a probability of at most 1 - k / (n + 1).
"""

import math
from fractions import Fraction

from torch import Tensor

NO_GUARANTEE = "no guarantee for new images"


def false_alarm_threshold(normal_scores: Tensor, rate: float) -> float:
    """The ``ceil((n + 1)(1 - rate))``-th smallest of n scores, or the largest where that is beyond them.

    Args:
        normal_scores: Scores of normal images ``(n,)``, none of which the model was fitted to.
        rate: Probability in [0, 1) with which a new one may exceed it.
    """
    count = len(normal_scores)
    rank = min(math.ceil((count + 1) * (1 - _exact(rate))), count)
    return normal_scores.sort().values[rank - 1].item()


def images_needed(rate: Fraction) -> int:
    """How many normal images a rate above 0 takes: with fewer, even the largest score is exceeded more often."""
    return math.ceil(1 / rate) - 1


def too_few(images: int, rate: Fraction) -> str:
    """What is wrong with so many images for a rate above 0, in words; empty if there are enough."""
    needed = images_needed(rate)
    return "" if images >= needed else f"a false-alarm rate of {percent(rate)} takes {needed} normal images, there are {images}"


def guaranteed_rate(images: int, rate: float) -> Fraction:
    """The rate that `false_alarm_threshold` keeps: as asked for, or where the images are too few the lowest that they allow.

    Example:
        >>> guaranteed_rate(99, 0.05), guaranteed_rate(4, 0.05), guaranteed_rate(4, 0)
        (Fraction(1, 20), Fraction(1, 5), Fraction(1, 5))
    """
    return max(_exact(rate), Fraction(1, images + 1))


def guarantee_of(images: int, rate: float, of: str) -> str:
    """What `false_alarm_threshold` promises, in words, of so many normal images of something, as ``" of Surfaces/weave"``."""
    asked, bound = _exact(rate), guaranteed_rate(images, rate)
    missed = f"; {too_few(images, asked)}" if asked and bound > asked else ""
    return (
        f"a new normal image of the same source exceeds the image threshold with a probability of at most {percent(bound)}, "
        f"and the pixel threshold anywhere with at most {percent(bound)}; from {images} normal images{of}{missed}"
    )


def percent(share: Fraction) -> str:
    """A share in words, rounded up to hundredths of a percent: a bound must not be told smaller than it is.

    Example:
        >>> percent(Fraction(1, 21)), percent(Fraction(1, 20))
        ('4.77 %', '5 %')
    """
    return f"{math.ceil(share * 10_000) / 100:g} %"


def _exact(rate: float) -> Fraction:
    """The rate as it is written: 0.29 of 100 is 29, whatever binary fractions make of 0.29."""
    return Fraction(str(rate))
