"""Errors of the model that name the options of `dpclip`'s commands, whose names differ from its arguments'."""

import re
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def own_options(**renamed: str) -> Iterator[None]:
    """Raise errors again with ``--model.`` taken off what they name.

    Args:
        renamed: Options by the names of the model's arguments, where they are called otherwise.

    Raises:
        FileNotFoundError: As inside.
        ModuleNotFoundError: As inside.
        ValueError: As inside.

    Example:
        >>> with own_options(few_shot_source="good"):
        ...     raise ValueError("--model.few_shot_source and --model.region.ignore")
        Traceback (most recent call last):
        ValueError: --good and --ignore
    """
    try:
        yield
    except (FileNotFoundError, ModuleNotFoundError, ValueError) as error:
        kind = next(kind for kind in (FileNotFoundError, ModuleNotFoundError, ValueError) if isinstance(error, kind))
        message = re.sub(r"--model\.(?:\w+\.)?(\w+)", lambda found: f"--{renamed.get(found[1], found[1])}", str(error))
        raise kind(message) from error
