"""What a checkpoint keeps of a model's arguments: plain data that another machine can build the model from."""

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from anomalib_dpclip.adapter_files.adapter_file import UNADAPTED
from anomalib_dpclip.files.plain_data import is_list
from anomalib_dpclip.model.configuration import CONFIGURED

# None of these belongs to the model, and a path of one machine would keep a checkpoint from being loaded on another.
_NOT_OF_THE_MODEL = ("weights", "auxiliary", "few_shot_source", "export")
_PATHS_IN_GROUPS = (("training", "auxiliary_root"), ("region", "ignore"))


def portable_arguments(arguments: Mapping[str, Any], resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the constructor as plain data that another machine can build the model from.

    Args:
        arguments: As they were given, groups as objects or mappings.
        resolved: Values of a configuration, for what was left to a file or to the defaults.
    """
    kept = dict(arguments) | {name: resolved[name] for name in arguments if name in resolved}
    plain = {name: _plain(value) for name, value in kept.items() if name not in _NOT_OF_THE_MODEL or value == UNADAPTED}
    for group, names in CONFIGURED.items():
        if group in plain:
            plain[group] = (plain[group] or {}) | {name: _plain(resolved.get(own)) for name, own in names.items()}
    for group, path in _PATHS_IN_GROUPS:
        (plain.get(group) or {}).pop(path, None)
    return plain


def keep_arguments(module: Any, resolved: Mapping[str, Any]) -> None:
    """Keep, as hyper-parameters, what another machine can build the model from.

    Args:
        module: `DPCLIP`.
        resolved: As in `portable_arguments`.
    """
    portable = portable_arguments(module.hparams, resolved)
    module.hparams.clear()
    module.hparams.update(portable)
    module.save_hyperparameters(module.hparams)  # renews the copy that loggers are given


def _plain(value: Any) -> Any:
    """Groups, tuples, and the lists and mappings of benchmark configs, which are OmegaConf's, as lists and dicts."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if is_list(value):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value
