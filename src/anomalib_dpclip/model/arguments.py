"""Arguments of DPCLIP that are checked, or made into parts, before there is a model."""

import math
from collections.abc import Sequence

from torch import nn

from anomalib_dpclip.model.post_processor import DPCLIPPostProcessor


def check_ranges(batch_size: int, learning_rate: float, decoupling_weight: float, seed: int, temperature: float | str) -> None:
    """Check numbers that nothing else would complain of in time.

    Raises:
        ValueError: If one is out of range; names the argument.
    """
    for name, value in (("batch_size", batch_size), ("learning_rate", learning_rate), ("temperature", temperature)):
        if not isinstance(value, str) and value <= 0:
            raise ValueError(f"{name} must be positive, not {value}")
    if not 0 <= decoupling_weight < math.inf:
        raise ValueError(f"decoupling_weight must be at least 0 and finite, not {decoupling_weight}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must lie in 0..{2**32 - 1}, not {seed}")


def class_list(names: str | Sequence[str] | None) -> list[str]:
    """Names of classes, from one text or from a list.

    Args:
        names: As ``"metal nut,bolt,screw"``, or a list; none at all for ``None``.

    Raises:
        ValueError: If a name is empty, or two are the same.

    Example:
        >>> class_list("metal nut, bolt")
        ['metal nut', 'bolt']
    """
    if names is None:
        return []
    found = [" ".join(name.split()) for name in (names.split(",") if isinstance(names, str) else names)]
    if not all(found):
        raise ValueError(f"export_classes has a class without a name: {names!r}. Give names with a comma between two")
    twice = [name for index, name in enumerate(found) if name.casefold() in {each.casefold() for each in found[:index]}]
    if twice:
        raise ValueError(f"export_classes names {twice[0]!r} twice: a file tells its classes apart by their names")
    return found


def chosen_post_processor(given: nn.Module | bool, false_alarm_rate: float | None) -> nn.Module | bool:
    """The post-processor that was given, or with a false-alarm rate the default one at that rate.

    Raises:
        ValueError: If both a rate and another post-processor were given.
    """
    if false_alarm_rate is None:
        return given
    if given is not True:
        raise ValueError("false_alarm_rate belongs to the default post-processor: give your own one its rate itself")
    return DPCLIPPostProcessor(false_alarm_rate=false_alarm_rate)
