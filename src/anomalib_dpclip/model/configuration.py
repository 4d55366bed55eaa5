"""One way from arguments and a file to what a model is: whoever loads a file, in whichever way, takes the same from it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from anomalib_dpclip.adapter_files.adapter_file import UNADAPTED, Provenance
from anomalib_dpclip.adapter_files.read_and_write import read_adapters
from anomalib_dpclip.files.plain_data import is_list
from anomalib_dpclip.method.adapters import Pooling
from anomalib_dpclip.method.anomaly_map import Detection
from anomalib_dpclip.method.prompting import ABNORMAL_STATES, NORMAL_STATES, TEMPLATES
from anomalib_dpclip.model.arguments import GROUPS


@dataclass(frozen=True)
class Configuration:
    """Arguments of `DPCLIP` that predictions depend on. Defaults are the published ones."""

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

    def as_dict(self) -> dict[str, Any]:
        """As plain data, for files."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


CONFIGURED: dict[str, dict[str, str]] = {
    name: {item.name: item.name for item in fields(GROUPS[name])} for name in ("clip", "architecture", "prompts")
} | {"memory": {"image_size": "memory_image_size", "layers": "memory_layers"}, "region": {"min_area": "min_area"}}
"""Arguments of groups that predictions depend on, each with its name in a `Configuration`."""

# None of these belongs to a model, and a path of one machine would keep a checkpoint from being loaded on another.
_NOT_OF_THE_MODEL = ("weights", "auxiliary", "few_shot_source", "export")
_PATHS_IN_GROUPS = (("training", "auxiliary_root"), ("region", "ignore"))


def given_values(groups: Mapping[str, Any], **flat: Any) -> dict[str, Any]:
    """What was given of a `Configuration`, by its names in it: everything of groups and of flat arguments but ``None``."""
    grouped = {own: getattr(groups[group], name) for group, names in CONFIGURED.items() for name, own in names.items()}
    return {name: value for name, value in (flat | grouped).items() if value is not None}


def resolve(given: dict[str, Any], file: Path | None = None, provenance: Provenance | None = None) -> Configuration:
    """What a model is: as it was given, else as a file of adapters or a checkpoint says, else as published.

    The provenance is the file's, where somebody has read it. Raises as `read_adapters`, and a ValueError if no model can be
    built as the file says.
    """
    if file is not None:
        provenance = provenance or read_adapters(file).provenance
    from_file = {} if provenance is None else _checked(provenance, file)
    if given.get("backbone") not in {None, from_file.get("backbone")}:
        from_file = {}  # of another backbone: its adapters will be refused, and nothing that it says holds
    pretrained = Path(from_file.get("pretrained", ""))
    if pretrained.suffix and not pretrained.is_file():
        # The name of a file that is not here: the fingerprint tells whether the default is the same.
        from_file.pop("pretrained")
    return replace(Configuration(), **from_file | given)


def _checked(provenance: Provenance, source: Path | None) -> dict[str, Any]:
    """Arguments that a file names, each of the type that it has here."""
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Configuration)
    known = {item.name for item in fields(Configuration)} | provenance.architecture.keys()
    values = {}
    for name, value in provenance.model_arguments.items():
        if name not in known:
            continue
        try:
            values[name] = parser.parse_object({name: value})[name]
        except ArgumentError as error:
            raise ValueError(
                f"{source}: no model can be built as its provenance says ({name}={value!r}); is the file damaged, or of "
                f"a newer version of anomalib-dpclip?"
            ) from error
    return values


def portable_arguments(arguments: Mapping[str, Any], resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Hyper-parameters: arguments of the constructor as plain data that another machine can build the model from.

    What was left to a file or to the defaults is as resolved, in a configuration.
    """
    kept = dict(arguments) | {name: resolved[name] for name in arguments if name in resolved}
    plain = {name: _plain(value) for name, value in kept.items() if name not in _NOT_OF_THE_MODEL or value == UNADAPTED}
    for group, names in CONFIGURED.items():
        if group in plain:
            plain[group] = (plain[group] or {}) | {name: _plain(resolved.get(own)) for name, own in names.items()}
    for group, path in _PATHS_IN_GROUPS:
        (plain.get(group) or {}).pop(path, None)
    return plain


def _plain(value: Any) -> Any:
    """Groups, tuples, and the lists and mappings of benchmark configs, which are OmegaConf's, as lists and dicts."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if is_list(value):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value
