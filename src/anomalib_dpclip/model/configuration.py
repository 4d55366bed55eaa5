"""One way from arguments and a file to what a model is: whoever loads a file takes the same from it.

Used by the constructor, `--ckpt_path`, `--model.weights`, `dpclip predict`, `dpclip correct` and the page.
"""

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from anomalib_dpclip.adapter_files.adapter_file import UNADAPTED, Provenance
from anomalib_dpclip.adapter_files.hub import local_file
from anomalib_dpclip.adapter_files.read_and_write import read_adapters
from anomalib_dpclip.method.adapters import Pooling
from anomalib_dpclip.method.anomaly_map import Detection
from anomalib_dpclip.method.prompting import ABNORMAL_STATES, NORMAL_STATES, TEMPLATES
from anomalib_dpclip.model.arguments import GROUPS, Groups


@dataclass(frozen=True)
class Configuration:
    """Everything that predictions depend on beside learned values. Defaults are the published ones.

    Attributes:
        backbone: See `DPCLIP`, as the others.
        memory_image_size: See `MemoryOptions.image_size`.
        memory_layers: See `MemoryOptions.layers`.
        min_area: See `RegionOptions`.
    """

    backbone: str = "ViT-L-14-336"
    pretrained: str = "openai"
    image_size: int | list[int] | None = None
    tiles: int = 1
    class_name: str | None = None
    domain: str | None = None
    memory_backbone: str | None = None
    memory_image_size: int | None = None
    memory_layers: list[float] | None = None
    min_area: int = 0
    quick_gelu: bool | None = None
    pretrained_tag: str | None = None
    image_mean: list[float] | None = None
    image_std: list[float] | None = None
    tokenizer: str | None = None
    adapter_layers: list[int] | None = None
    tap_layers: list[int] | None = None
    adapter_weight: float = 0.1
    projector_activation: bool = False
    grn_pooling: Pooling = "tokens"
    detection: Detection = "projector"
    normal_states: list[str] | tuple[str, ...] = NORMAL_STATES
    abnormal_states: list[str] | tuple[str, ...] = ABNORMAL_STATES
    templates: list[str] | tuple[str, ...] = TEMPLATES

    @property
    def architecture(self) -> dict[str, Any]:
        """Arguments of the paper's model."""
        names = ("adapter_layers", "tap_layers", "adapter_weight", "projector_activation", "grn_pooling", "detection")
        return {name: getattr(self, name) for name in names}

    @property
    def prompts(self) -> tuple[Any, ...]:
        """Normal states, abnormal states and templates."""
        return self.normal_states, self.abnormal_states, self.templates

    def as_dict(self) -> dict[str, Any]:
        """As plain data, for files."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


CONFIGURED: dict[str, dict[str, str]] = {
    name: {item.name: item.name for item in fields(GROUPS[name])} for name in ("clip", "architecture", "prompts")
} | {"memory": {"image_size": "memory_image_size", "layers": "memory_layers"}, "region": {"min_area": "min_area"}}
"""Arguments of groups that predictions depend on, each with its name in a `Configuration`."""

_NAMES = {item.name for item in fields(Configuration)}


def given_values(groups: Groups, **flat: Any) -> dict[str, Any]:
    """What was given of a `Configuration`, by its names in it: everything that is not ``None``.

    Args:
        groups: All groups of arguments.
        flat: Arguments that stand alone.
    """
    grouped = {own: getattr(getattr(groups, group), name) for group, names in CONFIGURED.items() for name, own in names.items()}
    return {name: value for name, value in (flat | grouped).items() if value is not None}


def resolve(given: dict[str, Any], file: Path | None = None) -> Configuration:
    """What a model is: as it was given, else as a file of adapters says, else as published.

    Args:
        given: Arguments that somebody named.
        file: Adapters or a checkpoint.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no adapters, or is damaged.
    """
    return merge(given) if file is None else merge(given, read_adapters(file).provenance, file)


def merge(given: dict[str, Any], provenance: Provenance | None = None, source: Path = Path()) -> Configuration:
    """`resolve`, where somebody has read the file.

    Args:
        given: Arguments that somebody named.
        provenance: What the file says of its adapters.
        source: The file, for the message.

    Raises:
        ValueError: If no model can be built as it says.
    """
    from_file = {} if provenance is None else _checked(provenance, source)
    if given.get("backbone") not in {None, from_file.get("backbone")}:
        from_file = {}  # of another backbone: its adapters will be refused, and nothing that it says holds
    pretrained = Path(from_file.get("pretrained", ""))
    if pretrained.suffix and not pretrained.is_file():
        # The name of a file that is not here: the fingerprint tells whether the default is the same.
        from_file.pop("pretrained")
    return replace(Configuration(), **from_file | given)


def _checked(provenance: Provenance, source: Path) -> dict[str, Any]:
    """Arguments that a file names, each of the type that it has here."""
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Configuration)
    found = provenance.model_arguments
    known = [name for name in found if name in _NAMES or name in provenance.architecture]
    values = {}
    for name in known:
        try:
            values[name] = parser.parse_object({name: found[name]})[name]
        except ArgumentError as error:
            raise ValueError(
                f"{source}: no model can be built as its provenance says ({name}={found[name]!r}); is the file damaged, or of "
                f"a newer version of anomalib-dpclip?"
            ) from error
    return values


def file_of(weights: str | Path | None) -> Path | None:
    """File of the adapters that the argument `weights` of `DPCLIP` names; ``None`` where it names none.

    Raises:
        FileNotFoundError: If it is not there, or on the hub and cannot be fetched.
        ValueError: If it names no file on the hub, or a pickle there.
    """
    return None if weights is None or weights == UNADAPTED else local_file(weights)
