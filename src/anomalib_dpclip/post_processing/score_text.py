"""Normalised scores as text, which is always on the side of the threshold that the score is on."""

THRESHOLD = 0.5

_DIGITS = range(3, 10)
"""A float has no more that say anything."""


def score_text(score: float) -> str:
    """A normalised score in three digits, or as many as it takes to tell it from the threshold.

    Example:
        >>> score_text(0.12345), score_text(0.50004), score_text(0.5)
        ('0.123', '0.50004', '0.500')
    """
    texts = (f"{score:.{digits}f}" for digits in _DIGITS)
    return next((text for text in texts if score == THRESHOLD or float(text) != THRESHOLD), f"{score:.3f}")
