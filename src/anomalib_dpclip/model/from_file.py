"""A model for a file of adapters, built as the file says: nobody has to name its backbone again."""

from pathlib import Path
from typing import Any

from anomalib_dpclip.adapter_files.provenance import Provenance
from anomalib_dpclip.adapter_files.read_and_write import read_adapters
from anomalib_dpclip.model.lightning_model import DPCLIP, UNADAPTED

# Arguments of the training that adapters only make sense with, beside those of their architecture.
_OF_THE_TRAINING = ("quick_gelu", "image_size", "normal_states", "abnormal_states", "templates")


def model_from_file(weights: str | Path, **arguments: Any) -> DPCLIP:
    """Build the model that adapters belong to: backbone, CLIP weights, architecture and prompts are those of their training.

    Args:
        weights: Trained adapters, or ``clip`` for CLIP without any. A published ``.pth`` says nothing of its training: then
            the arguments' defaults hold, which are the published ones.
        arguments: Of `DPCLIP`, instead of what the file says.

    Raises:
        FileNotFoundError: If the adapters or CLIP's weights are not there.
        ValueError: If the file holds no adapters, or they do not belong to the backbone that it or the arguments name.
    """
    told = {} if weights == UNADAPTED else arguments_of(read_adapters(weights).provenance)
    try:
        return DPCLIP(**told | arguments, weights=weights)
    except TypeError as error:  # of values of another kind in a file that is not from here
        raise ValueError(f"{weights}: no model can be built as its provenance says ({error}); is the file damaged?") from error


def arguments_of(provenance: Provenance) -> dict[str, Any]:
    """Arguments of `DPCLIP` that adapters were trained with, as far as their provenance tells."""
    named = {"backbone": provenance.backbone, "pretrained": provenance.pretrained}
    trained = {name: provenance.hyper_parameters.get(name) for name in _OF_THE_TRAINING}
    return {name: value for name, value in (named | provenance.architecture | trained).items() if value not in (None, "")}
