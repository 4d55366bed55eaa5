"""Whether sets of tensors are the same, and how those in a file differ from those that a model has."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def difference_of_tensors(found: Mapping[Any, Any], expected: Mapping[str, Tensor]) -> str | None:
    """The first difference in names or shapes of a file and a model, in one line; ``None`` without any."""
    differing = (("missing", expected.keys() - found.keys()), ("too many", found.keys() - expected.keys()))
    parts = [f"{len(names)} tensors {what}, such as {min(names, key=str)!r}" for what, names in differing if names]
    if parts:
        return "; ".join(parts)
    for name, value in found.items():
        shape = tuple(value.shape) if isinstance(value, Tensor) and not value.is_nested else type(value).__name__
        if shape != tuple(expected[name].shape):
            return f"{name} is {shape} in the file and {tuple(expected[name].shape)} in the model"
    return None


def same_tensors(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Whether two sets of tensors of the same names are equal to the last bit."""
    return all(torch.equal(value, second[name]) for name, value in first.items())
