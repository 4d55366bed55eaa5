"""What a file of adapters holds, whatever its format."""

from dataclasses import dataclass

from torch import Tensor

from anomalib_dpclip.adapter_files.provenance import Provenance


@dataclass(frozen=True)
class AdapterFile:
    """Contents of an adapter file.

    Attributes:
        tensors: AdapterFile and projectors by their published names.
        calibration: State of the auxiliary calibration, empty if the file has none.
        provenance: Where they come from.
    """

    tensors: dict[str, Tensor]
    calibration: dict[str, Tensor]
    provenance: Provenance
