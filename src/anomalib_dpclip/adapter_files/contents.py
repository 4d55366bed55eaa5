"""What a file of adapters holds, whatever its format."""

from dataclasses import dataclass, field

from torch import Tensor

from anomalib_dpclip.adapter_files.provenance import Provenance


@dataclass(frozen=True)
class AdapterFile:
    """Contents of an adapter file.

    Attributes:
        tensors: AdapterFile and projectors by their published names.
        calibration: State of the auxiliary calibration, empty if the file has none.
        provenance: Where they come from.
        memory: State of the memory of photos of a target; only a checkpoint can have one.
    """

    tensors: dict[str, Tensor]
    calibration: dict[str, Tensor]
    provenance: Provenance
    memory: dict[str, Tensor] = field(default_factory=dict)
