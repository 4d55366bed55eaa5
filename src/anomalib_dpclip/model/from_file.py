"""A model from its file alone: adapters and checkpoints carry what they were trained with, so nobody has to type it again."""

from pathlib import Path
from typing import Any

from anomalib_dpclip.adapter_files.read_and_write import read_adapters
from anomalib_dpclip.model.lightning_model import DPCLIP

_BUILT_WITH = (
    "backbone",
    "pretrained",
    "quick_gelu",
    "image_size",
    "tiles",
    "class_name",
    "domain",
    "normal_states",
    "abnormal_states",
    "templates",
)
"""Arguments of a training that predictions need too."""


def model_from_file(path: str | Path, **arguments: Any) -> DPCLIP:
    """Build a model as its file says.

    Args:
        path: Adapters (``.safetensors`` of this package or published ``.pth``), which bring the calibration of what they
            learned from, or a Lightning ``.ckpt``, which brings that of its target.
        arguments: For `DPCLIP`, instead of what the file says; a published file says nothing.

    Returns:
        The model, ready to predict.

    Raises:
        FileNotFoundError: If the file, or the CLIP weights that it names, are not there.
        ValueError: If it is none of these files, damaged, or does not fit the arguments.
    """
    file = Path(path)
    provenance = read_adapters(file).provenance
    if file.suffix != ".safetensors" and provenance.fingerprint:
        return DPCLIP.load_from_checkpoint(file, map_location="cpu", weights_only=True, **arguments)
    told = {name: value for name, value in provenance.hyper_parameters.items() if name in _BUILT_WITH}
    told |= {name: value for name in ("backbone", "pretrained") if (value := getattr(provenance, name))}
    return DPCLIP(**{**told, **provenance.architecture, "weights": file, **arguments})
