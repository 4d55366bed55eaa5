"""Errors of the model that name the options of `dpclip`'s commands, whose names differ from its arguments', and its loading."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

_USERS = (FileNotFoundError, ModuleNotFoundError, ValueError)


@contextmanager
def own_options(**renamed: str) -> Iterator[None]:
    """Raise a user's errors again with ``--model.`` taken off what they name, and options by other names where given.

    Example:
        >>> with own_options(few_shot_source="good"):
        ...     raise ValueError("--model.few_shot_source and --model.region.ignore")
        Traceback (most recent call last):
        ValueError: --good and --ignore
    """
    try:
        yield
    except _USERS as error:
        kind = next(kind for kind in _USERS if isinstance(error, kind))
        message = re.sub(r"--model\.(?:\w+\.)?(\w+)", lambda found: f"--{renamed.get(found[1], found[1])}", str(error))
        raise kind(message) from error
