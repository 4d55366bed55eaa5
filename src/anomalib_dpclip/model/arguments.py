"""Arguments of DPCLIP that are checked, or made into parts, before there is a model."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from anomalib_dpclip.adapter_files.hub import local_file
from anomalib_dpclip.adapter_files.read_and_write import arguments_from_file
from anomalib_dpclip.method.adapters import Pooling
from anomalib_dpclip.method.anomaly_map import Detection
from anomalib_dpclip.method.unadapted import UNADAPTED
from anomalib_dpclip.post_processing.post_processor import DPCLIPPostProcessor


class AdaptersArguments(NamedTuple):
    """Arguments of `DPCLIP` that adapters only make sense with; ``None`` where one was not given, or follows from the backbone.

    Attributes:
        backbone: See `DPCLIP`, as the others.
    """

    backbone: str | None
    pretrained: str | None
    quick_gelu: bool | None
    adapter_layers: Sequence[int] | None
    tap_layers: Sequence[int] | None
    adapter_weight: float | None
    projector_activation: bool | None
    grn_pooling: Pooling | None
    detection: Detection | None

    @property
    def architecture(self) -> dict[str, Any]:
        """The arguments of `DPCLIPModel` among them."""
        return {name: value for name, value in self._asdict().items() if name not in {"backbone", "pretrained", "quick_gelu"}}

    def resolved(self, file: Path | None) -> "AdaptersArguments":
        """As they were given, else as a file of adapters says, else the published ones.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it holds no adapters, or is damaged.
        """
        told = {} if file is None else arguments_from_file(file)
        if self.backbone not in {None, told.get("backbone")}:
            told = {}  # of another backbone: they will be refused, and nothing that they say holds
        pretrained = Path(told.get("pretrained", ""))
        if pretrained.suffix and not pretrained.is_file():
            del told["pretrained"]  # the name of a file that is not here: the fingerprint tells whether the default is the same
        told = {name: value for name, value in told.items() if name in self._fields}
        given = {name: value for name, value in self._asdict().items() if value is not None}
        return self._replace(**{**_PUBLISHED, **told, **given})


_PUBLISHED = {
    "backbone": "ViT-L-14-336",
    "pretrained": "openai",
    "adapter_weight": 0.1,
    "projector_activation": False,
    "grn_pooling": "tokens",
    "detection": "projector",
}


def file_of(weights: str | Path | None) -> Path | None:
    """File of the adapters that the argument `weights` of `DPCLIP` names; ``None`` where it names none.

    Raises:
        FileNotFoundError: If it is on the hub, and cannot be fetched.
        ValueError: If it names no file on the hub, or a pickle there.
    """
    return None if weights is None or weights == UNADAPTED else local_file(weights)


def check_ranges(
    batch_size: int, learning_rate: float, decoupling_weight: float, seed: int, temperature: float | str, min_area: int
) -> None:
    """Check numbers that nothing else would complain of in time.

    Raises:
        ValueError: If one is out of range; names the argument.
    """
    for name, value in (("batch_size", batch_size), ("learning_rate", learning_rate), ("temperature", temperature)):
        if not isinstance(value, str) and value <= 0:
            raise ValueError(f"{name} must be positive, not {value}")
    if not 0 <= decoupling_weight < math.inf:
        raise ValueError(f"decoupling_weight must be at least 0 and finite, not {decoupling_weight}")
    if min_area < 0:
        raise ValueError(f"min_area must be at least 0, not {min_area}: it is a number of pixels")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must lie in 0..{2**32 - 1}, not {seed}")


def class_list(names: str | Sequence[str] | None) -> list[str]:
    """Names of classes, from one text or from a list.

    Args:
        names: As ``"metal nut,bolt,screw"``, or a list; none at all for ``None``.

    Raises:
        ValueError: If a name is empty, or two are the same.

    Example:
        >>> class_list("metal nut, bolt")
        ['metal nut', 'bolt']
    """
    if names is None:
        return []
    found = [" ".join(name.split()) for name in (names.split(",") if isinstance(names, str) else names)]
    if not all(found):
        raise ValueError(f"export_classes has a class without a name: {names!r}. Give names with a comma between two")
    twice = [name for index, name in enumerate(found) if name.casefold() in {each.casefold() for each in found[:index]}]
    if twice:
        raise ValueError(f"export_classes names {twice[0]!r} twice: a file tells its classes apart by their names")
    return found


def chosen_post_processor(given: nn.Module | bool, false_alarm_rate: float | None) -> nn.Module | bool:
    """The post-processor that was given, or with a false-alarm rate the default one at that rate.

    Raises:
        ValueError: If both a rate and another post-processor were given.
    """
    if false_alarm_rate is None:
        return given
    if given is not True:
        raise ValueError("false_alarm_rate belongs to the default post-processor: give your own one its rate itself")
    return DPCLIPPostProcessor(false_alarm_rate=false_alarm_rate)
