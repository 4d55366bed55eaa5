"""Normalised scores as text: on the side of the threshold that they are on, and among those of good images."""

from typing import NamedTuple

THRESHOLD = 0.5


def score_text(score: float) -> str:
    """A normalised score in three digits, or as many as it takes to tell it from the threshold.

    Example:
        >>> score_text(0.12345), score_text(0.50004), score_text(0.5)
        ('0.123', '0.50004', '0.500')
    """
    texts = (f"{score:.{digits}f}" for digits in range(3, 10))  # no more digits of a float say anything
    return next((text for text in texts if score == THRESHOLD or float(text) != THRESHOLD), f"{score:.3f}")


class Standing(NamedTuple):
    """How many of the good images whose scores are known score lower: an everyday number beside a score.

    Example:
        >>> str(Standing(78, 80)), str(Standing(1999, 2000))
        ('97.5 % of 80 good photos score lower', '99.9 % of 2000 good photos score lower')
    """

    lower: int
    total: int

    def __str__(self) -> str:
        """In words; rounded down, so that all of them is said of all of them only."""
        return f"{self.lower * 1000 // self.total / 10:g} % of {self.total} good photos score lower"
