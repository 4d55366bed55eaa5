"""What the file of a model says of the arguments that it is built with."""

from pathlib import Path
from typing import Any, NamedTuple

from anomalib_dpclip.adapter_files.read_and_write import read_adapters


class _Kind(NamedTuple):
    """What values of an argument are: one of some types, or a list of them."""

    types: tuple[type, ...]
    is_list: bool = False

    def fits(self, value: Any) -> bool:
        if self.is_list:
            return isinstance(value, list) and all(type(each) in self.types for each in value)
        return type(value) in self.types  # exactly: to isinstance, true is a whole number


_TEXT, _TEXTS = _Kind((str,)), _Kind((str,), is_list=True)
_BACKBONE = {"backbone": _TEXT, "pretrained": _TEXT, "quick_gelu": _Kind((bool,))}
_ARCHITECTURE = {
    "adapter_layers": _Kind((int,), is_list=True),
    "tap_layers": _Kind((int,), is_list=True),
    "adapter_weight": _Kind((float, int)),
    "projector_activation": _Kind((bool,)),
    "grn_pooling": _TEXT,
    "detection": _TEXT,
}
_PREDICTION = {
    "image_size": _Kind((int,)),
    "tiles": _Kind((int,)),
    "class_name": _TEXT,
    "domain": _TEXT,
    "normal_states": _TEXTS,
    "abnormal_states": _TEXTS,
    "templates": _TEXTS,
}
_KINDS = _BACKBONE | _ARCHITECTURE | _PREDICTION
"""Arguments of a training that predictions need too."""


def arguments_from_file(path: str | Path) -> dict[str, Any]:
    """Arguments of `DPCLIP` that a file of adapters or a checkpoint was trained with, as far as predictions need them.

    Args:
        path: The file. A published ``.pth`` says nothing: its are the defaults.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no adapters, is damaged, or no model can be built as it says.
    """
    provenance = read_adapters(path).provenance
    told = {name: value for name, value in provenance.hyper_parameters.items() if name in _KINDS and value is not None}
    named = {"backbone": provenance.backbone, "pretrained": provenance.pretrained}
    told |= {name: value for name, value in named.items() if value} | provenance.architecture
    for name, value in told.items():
        if name not in _KINDS or not _KINDS[name].fits(value):
            raise ValueError(
                f"{path}: no model can be built as its provenance says ({name}={value!r}); is the file damaged, or of a newer "
                f"version of anomalib-dpclip?"
            )
    return told
