"""Plain data from files of unknown origin: small, and safe to show on a terminal."""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

MOST_VALUES = 10_000
"""More than any honest description has; a few nested lists that hold each other many times over would fill the memory."""

_DEEPEST = 5


def plain_data(value: Any) -> Any:
    """A copy of plain data, its text made `printable`: text, numbers, truth values, ``None``, and lists and dicts of these.

    Anything else, and deeper or larger data than any honest description is, is a ValueError.
    """
    return _copy(value, 0, count(1))


def printable(text: str) -> str:
    r"""Text in which whatever would move the cursor or start a new line is an escape.

    Example:
        >>> printable("a\nb")
        'a\\nb'
    """
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)


def is_list(value: Any) -> bool:
    """Whether a value is a list of any kind; configurations of benchmarks bring OmegaConf's."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def _copy(value: Any, depth: int, seen: Iterator[int]) -> Any:
    if depth > _DEEPEST or next(seen) > MOST_VALUES:
        raise ValueError(f"nested deeper than {_DEEPEST} levels, or more than {MOST_VALUES} values")
    if isinstance(value, str):
        return printable(value)
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, list | tuple):
        return [_copy(each, depth + 1, seen) for each in value]
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {printable(name): _copy(each, depth + 1, seen) for name, each in value.items()}
    raise ValueError(f"a {type(value).__name__} is no plain data")
