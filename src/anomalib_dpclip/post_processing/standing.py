"""Where a score stands among those of good images: an everyday number beside a score that means little by itself."""

from typing import NamedTuple


class Standing(NamedTuple):
    """How many good images score lower.

    Attributes:
        lower: Good images whose score is lower.
        total: All good images whose scores are known.

    Example:
        >>> str(Standing(78, 80)), str(Standing(1999, 2000))
        ('97.5 % of 80 good photos score lower', '99.9 % of 2000 good photos score lower')
    """

    lower: int
    total: int

    def __str__(self) -> str:
        """In words; rounded down, so that all of them is said of all of them only."""
        return f"{self.lower * 1000 // self.total / 10:g} % of {self.total} good photos score lower"
