"""Whether sets of tensors are the same, and how those in a file differ from those that a model has."""

from collections.abc import Mapping
from typing import Any, TypeGuard

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


def is_plain_tensor(value: Any) -> TypeGuard[Tensor]:
    """Whether a value is a dense tensor with its numbers in it: not sparse, nested, quantised or without storage."""
    is_dense = isinstance(value, Tensor) and value.layout == torch.strided
    return is_dense and not (value.is_nested or value.is_quantized or value.is_meta)
