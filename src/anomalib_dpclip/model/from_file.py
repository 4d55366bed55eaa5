"""A model from its file alone: adapters and checkpoints carry what they were trained with, so nobody has to type it again."""

from pathlib import Path
from typing import Any

from anomalib_dpclip.adapter_files.adapter_file import UNADAPTED
from anomalib_dpclip.adapter_files.hub import local_file
from anomalib_dpclip.adapter_files.read_and_write import arguments_from_file
from anomalib_dpclip.model.lightning_model import DPCLIP


def model_from_file(path: str | Path, **arguments: Any) -> DPCLIP:
    """Build a model as its file says, ready to predict.

    Args:
        path: Adapters (``.safetensors`` of this package or published ``.pth``), which bring the calibration of what they
            learned from, or a Lightning ``.ckpt``, which brings that of its target.
        arguments: For `DPCLIP`, instead of what the file says; a published file says nothing.
    """
    file = path if path == UNADAPTED else local_file(path)
    if file == UNADAPTED or Path(file).suffix == ".safetensors" or not arguments_from_file(file):
        return DPCLIP(**arguments | {"weights": file})
    model: Any = DPCLIP.load_from_checkpoint(file, map_location="cpu", weights_only=True, **arguments)
    return model
