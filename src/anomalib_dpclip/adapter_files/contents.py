"""What a file of adapters holds, whatever its format."""

from dataclasses import dataclass, field
from typing import Any, TypeGuard

import torch
from torch import Tensor

from anomalib_dpclip.adapter_files.provenance import Provenance


@dataclass(frozen=True)
class AdapterFile:
    """Contents of an adapter file.

    Attributes:
        tensors: Adapters and projectors by their published names.
        calibration: State of the auxiliary calibration, empty if the file has none.
        provenance: Where they come from.
        memory: State of the memory of photos of a target; only a checkpoint can have one.
        threshold_basis: What the thresholds of a target hold to, in words; only a checkpoint can have them.
        corrections: How many photos of the memory were called anomalous wrongly before.
    """

    tensors: dict[str, Tensor]
    calibration: dict[str, Tensor]
    provenance: Provenance
    memory: dict[str, Tensor] = field(default_factory=dict)
    threshold_basis: str = ""
    corrections: int = 0


def is_plain_tensor(value: Any) -> TypeGuard[Tensor]:
    """Whether a value is a dense tensor with its numbers in it: not sparse, nested, quantised or without storage."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not (value.is_nested or value.is_quantized or value.is_meta)
    )
