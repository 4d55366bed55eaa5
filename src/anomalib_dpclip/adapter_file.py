"""Adapter files: our safetensors with provenance, adapters inside Lightning checkpoints, and the published ``.pth`` format.

They come from anywhere: nothing in them is executed, and whatever cannot be read is one error that names the file.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from anomalib_dpclip.atomic_write import atomic_write
from anomalib_dpclip.safe_load import load_plain
from anomalib_dpclip.torch_model import DPCLIPModel

FORMAT_VERSION = 1
"""Of adapter files; a file with a higher one is refused."""

_METADATA_KEY = "dpclip"
_DIGEST_KEY = "sha256"
_CALIBRATION_PREFIX = "calibration."


@dataclass(frozen=True)
class Provenance:
    """Where adapters come from.

    Attributes:
        backbone: Name of the CLIP backbone.
        pretrained: Its weights: an open_clip tag, or the name of a file.
        fingerprint: Of the backbone's weights and activation; empty if unknown.
        architecture: Arguments that a model must share for the adapters to mean the same.
        learned_from: Data sets and classes, as ``"VisA/candle"``.
        hyper_parameters: Of the training.
        epochs: Epochs trained.
        versions: Of this package, anomalib, torch and open_clip.
        format_version: Of the file.
    """

    backbone: str = ""
    pretrained: str = ""
    fingerprint: str = ""
    architecture: dict[str, Any] = field(default_factory=dict)
    learned_from: list[str] = field(default_factory=list)
    hyper_parameters: dict[str, Any] = field(default_factory=dict)
    epochs: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @classmethod
    def from_dict(cls, values: Any, path: Path) -> "Provenance":
        """Build from plain data, refusing newer formats; unknown keys are left out.

        Raises:
            ValueError: If the data is of another kind or from a newer version of this package.
        """
        if not isinstance(values, dict):
            raise ValueError(f"{path}: its provenance is not what this package writes; is it an adapter file?")
        if not isinstance(values.get("format_version", 1), int) or values.get("format_version", 1) > FORMAT_VERSION:
            raise ValueError(
                f"{path} has format version {values.get('format_version')}, this package knows up to {FORMAT_VERSION}: "
                f"upgrade anomalib-dpclip"
            )
        defaults = {item.name: getattr(cls(), item.name) for item in fields(cls)}
        known = {name: values[name] for name in defaults if name in values}
        wrong = [name for name, value in known.items() if not isinstance(value, type(defaults[name]))]
        wrong += [] if all(isinstance(source, str) for source in known.get("learned_from", ())) else ["learned_from"]
        if wrong:
            raise ValueError(f"{path}: its provenance has a wrong {wrong[0]!r}; is the file damaged?")
        return cls(**known)


@dataclass(frozen=True)
class Adapters:
    """Contents of an adapter file.

    Attributes:
        tensors: Adapters and projectors by their published names.
        calibration: State of the auxiliary calibration, empty if the file has none.
        provenance: Where they come from.
    """

    tensors: dict[str, Tensor]
    calibration: dict[str, Tensor]
    provenance: Provenance


def write_adapters(adapters: Adapters, path: str | Path) -> Path:
    """Write an adapter file, atomically; see `save_adapters`."""
    path = Path(path)
    if path.suffix not in {".safetensors", ".pth"}:
        raise ValueError(f"{path}: adapters are written as .safetensors, or .pth for the published format")
    tensors = {name: value.detach().cpu().contiguous() for name, value in adapters.tensors.items()}
    with atomic_write(path) as unfinished:
        if path.suffix == ".safetensors":
            tensors |= {_CALIBRATION_PREFIX + name: value.cpu() for name, value in adapters.calibration.items()}
            values = asdict(adapters.provenance)
            values[_DIGEST_KEY] = _digest(values, tensors)
            # One entry: safetensors writes several in random order, and equal adapters should be equal files.
            unfinished.write_bytes(save(tensors, {_METADATA_KEY: json.dumps(values, sort_keys=True)}))
        else:
            torch.save({"epoch": adapters.provenance.epochs, "image_adapter": tensors}, unfinished)
    return path


def read_adapters(path: str | Path) -> Adapters:
    """Read an adapter file of any of the three kinds without a model.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none of them, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no adapter file {path}")
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickled(path)


def _read_safetensors(path: Path) -> Adapters:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a safetensors file that can be read, it may be truncated: {error}") from error
    if _METADATA_KEY not in metadata:
        raise ValueError(f"{path} holds no DP-CLIP adapters (a safetensors file without their provenance)")
    try:
        values = json.loads(metadata[_METADATA_KEY])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: its provenance cannot be read; the file is damaged: {error}") from error
    provenance = Provenance.from_dict(values, path)  # first: a newer format may have another digest
    if _DIGEST_KEY in values and values.pop(_DIGEST_KEY) != _digest(values, tensors):
        raise ValueError(f"{path} is damaged: its contents are not those it was written with. Fetch it again")
    calibration = {
        name.removeprefix(_CALIBRATION_PREFIX): value for name, value in tensors.items() if name.startswith(_CALIBRATION_PREFIX)
    }
    adapters = {name: value for name, value in tensors.items() if not name.startswith(_CALIBRATION_PREFIX)}
    return Adapters(adapters, calibration, provenance)


def _digest(provenance: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Hash of all that an adapter file holds: safetensors itself does not notice a flipped bit."""
    digest = hashlib.sha256(json.dumps(provenance, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _read_pickled(path: Path) -> Adapters:
    """A published ``.pth`` or a Lightning checkpoint, unpickling tensors and plain data only."""
    from anomalib.utils.serialization import anomalib_safe_globals

    with anomalib_safe_globals():
        content = load_plain(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no checkpoint: it holds a {type(content).__name__}")
    if isinstance(content.get("image_adapter"), Mapping):
        epoch = content.get("epoch", 0)
        return Adapters(dict(content["image_adapter"]), {}, Provenance(epochs=epoch if isinstance(epoch, int) else 0))
    if not isinstance(content.get("state_dict"), Mapping) or _METADATA_KEY not in content:
        raise ValueError(
            f"{path} is no DP-CLIP checkpoint: neither a Lightning checkpoint of this model nor a published one with "
            f"'image_adapter'"
        )
    state = {str(name): value for name, value in content["state_dict"].items()}
    prefixes = DPCLIPModel.adapter_prefixes
    adapters = {
        name.removeprefix("model."): value for name, value in state.items() if name.removeprefix("model.").startswith(prefixes)
    }
    calibration_prefix = "post_processor.auxiliary_calibration."
    calibration = {
        name.removeprefix(calibration_prefix): value for name, value in state.items() if name.startswith(calibration_prefix)
    }
    return Adapters(adapters, calibration, Provenance.from_dict(content[_METADATA_KEY], path))
