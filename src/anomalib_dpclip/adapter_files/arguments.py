"""What the file of a model says of the arguments that it is built with."""

from pathlib import Path
from typing import Any

from anomalib_dpclip.adapter_files.read_and_write import read_adapters

_FOR_PREDICTIONS = (
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
"""Arguments of a training that predictions need too; the architecture's come with it."""


def arguments_from_file(path: str | Path) -> dict[str, Any]:
    """Arguments of `DPCLIP` that a file of adapters or a checkpoint was trained with, as far as predictions need them.

    Args:
        path: The file. A published ``.pth`` says nothing: its are the defaults.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no adapters, or is damaged.
    """
    provenance = read_adapters(path).provenance
    told = {
        name: value for name, value in provenance.hyper_parameters.items() if name in _FOR_PREDICTIONS and value is not None
    }
    named = {"backbone": provenance.backbone, "pretrained": provenance.pretrained}
    return told | {name: value for name, value in named.items() if value} | provenance.architecture
