"""Adapter files: our safetensors with provenance, adapters inside Lightning checkpoints, and the published ``.pth`` format."""

import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from anomalib_dpclip.torch_model import DPCLIPModel

if TYPE_CHECKING:
    from anomalib_dpclip.lightning_model import DPCLIP

FORMAT_VERSION = 1
"""Of adapter files; a file with a higher one is refused."""

_METADATA_KEY = "dpclip"
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


def architecture_of(model: DPCLIPModel) -> dict[str, Any]:
    """Arguments of a model that its adapters only make sense with."""
    return {
        "adapter_layers": list(model.adapter_layers),
        "tap_layers": list(model.tap_layers),
        "adapter_weight": model.adapter_weight,
        "projector_activation": model.projector_activation,
        "grn_pooling": model.grn_pooling,
    }


def package_versions() -> dict[str, str]:
    """Versions of the packages that results depend on."""
    return {name: version(name) for name in ("anomalib-dpclip", "anomalib", "torch", "open_clip_torch")}


def adapter_tensors(model: DPCLIPModel) -> dict[str, Tensor]:
    """Adapters and projectors by their published names."""
    return {name: value for name, value in model.state_dict().items() if name.startswith(model.adapter_prefixes)}


def save_adapters(model: "DPCLIP | DPCLIPModel", path: str | Path) -> Path:
    """Write a model's adapters, atomically: the whole file or none.

    Args:
        model: The model.
        path: File to write, ``.safetensors``, or ``.pth`` for the published format (which has no provenance).

    Returns:
        The path.

    Raises:
        ValueError: For another suffix.
    """
    torch_model, calibration, provenance = _parts(model)
    stored = {} if calibration is None else calibration.state_dict()
    return write_adapters(Adapters(adapter_tensors(torch_model), stored, provenance), path)


def write_adapters(adapters: Adapters, path: str | Path) -> Path:
    """Write an adapter file, atomically; see `save_adapters`."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in adapters.tensors.items()}
    try:
        if path.suffix == ".safetensors":
            extra = {_CALIBRATION_PREFIX + name: value.cpu() for name, value in adapters.calibration.items()}
            metadata = {_METADATA_KEY: json.dumps(asdict(adapters.provenance), sort_keys=True)}
            temporary.write_bytes(save(tensors | extra, metadata))
        elif path.suffix == ".pth":
            torch.save({"epoch": adapters.provenance.epochs, "image_adapter": tensors}, temporary)
        else:
            raise ValueError(f"{path}: adapters are written as .safetensors, or .pth for the published format")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def load_adapters(model: "DPCLIP | DPCLIPModel", path: str | Path) -> Provenance:
    """Put adapters from a file into a model, all or nothing.

    Args:
        model: The model.
        path: Our ``.safetensors``, a Lightning ``.ckpt``, or a published ``.pth``. Nothing in it is executed.

    Returns:
        Where the adapters come from.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is none of these, is damaged, is of a newer format, or its adapters do not belong to the
            model's backbone.
    """
    path = Path(path)
    adapters = read_adapters(path)
    torch_model, calibration, _ = _parts(model)
    _check_provenance(adapters.provenance, torch_model, path)
    check_tensors(adapters.tensors, adapter_tensors(torch_model), path)
    if calibration is not None and adapters.calibration:
        check_tensors(adapters.calibration, calibration.state_dict(), path)
        calibration.load_state_dict(adapters.calibration)
    torch_model.load_state_dict(adapters.tensors, strict=False)  # checked above; the backbone is not in the file
    return adapters.provenance


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


def _parts(model: "DPCLIP | DPCLIPModel") -> tuple[DPCLIPModel, Any, Provenance]:
    if isinstance(model, DPCLIPModel):
        provenance = Provenance(
            fingerprint=model.backbone_fingerprint,
            architecture=architecture_of(model),
            versions=package_versions(),
        )
        return model, None, provenance
    return model.model, getattr(model.post_processor, "auxiliary_calibration", None), model.provenance


def _read_safetensors(path: Path) -> Adapters:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
        if _METADATA_KEY not in metadata:
            raise ValueError(f"{path} holds no DP-CLIP adapters (a safetensors file without their provenance)")
        provenance = Provenance.from_dict(json.loads(metadata[_METADATA_KEY]), path)
    except (SafetensorError, OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a safetensors file that can be read, it may be truncated: {error}") from error
    calibration = {
        name.removeprefix(_CALIBRATION_PREFIX): value
        for name, value in tensors.items()
        if name.startswith(_CALIBRATION_PREFIX)
    }
    adapters = {name: value for name, value in tensors.items() if not name.startswith(_CALIBRATION_PREFIX)}
    return Adapters(adapters, calibration, provenance)


def _read_pickled(path: Path) -> Adapters:
    """A published ``.pth`` or a Lightning checkpoint, unpickling tensors and plain data only."""
    content = load_plain(path)
    if isinstance(content.get("image_adapter"), Mapping):
        epoch = content.get("epoch", 0)
        return Adapters(dict(content["image_adapter"]), {}, Provenance(epochs=epoch if isinstance(epoch, int) else 0))
    if not isinstance(content.get("state_dict"), Mapping) or _METADATA_KEY not in content:
        raise ValueError(
            f"{path} is no DP-CLIP checkpoint: neither a Lightning checkpoint of this model nor a published one with "
            f"'image_adapter'"
        )
    state = content["state_dict"]
    prefixes = DPCLIPModel.adapter_prefixes
    adapters = {
        name.removeprefix("model."): value
        for name, value in state.items()
        if name.removeprefix("model.").startswith(prefixes)
    }
    calibration_prefix = "post_processor.auxiliary_calibration."
    calibration = {
        name.removeprefix(calibration_prefix): value
        for name, value in state.items()
        if name.startswith(calibration_prefix)
    }
    return Adapters(adapters, calibration, Provenance.from_dict(content[_METADATA_KEY], path))


def load_plain(path: Path) -> dict[str, Any]:
    """Load a pickled dictionary of tensors and plain data; anything else in it is refused, and nothing is executed.

    Raises:
        ValueError: If the file cannot be read so.
    """
    from anomalib.utils.serialization import anomalib_safe_globals

    try:
        with anomalib_safe_globals():
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{path} is not a checkpoint that can be read safely (truncated, of another kind, or with code in it): {reason}"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no checkpoint: it holds a {type(content).__name__}")
    return content


def check_tensors(found: Mapping[str, Any], expected: Mapping[str, Tensor], path: Path) -> None:
    """Compare names, shapes and values of tensors with what a model has.

    Raises:
        ValueError: At the first difference; names the file, the tensor and both shapes.
    """
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or extra:
        raise ValueError(
            f"{path} does not fit the model: "
            + "; ".join(
                f"{len(names)} tensors {what}, such as {names[0]!r}"
                for what, names in (("missing", missing), ("too many", extra))
                if names
            )
            + " (other adapter_layers, tap_layers or grn_pooling?)"
        )
    for name, value in found.items():
        if not isinstance(value, Tensor) or value.shape != expected[name].shape:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"{path} does not fit the backbone: {name} is {shape} in the file and {tuple(expected[name].shape)} in the "
                f"model"
            )
        if value.is_floating_point() != expected[name].is_floating_point():
            raise ValueError(f"{path}: {name} has type {value.dtype} instead of {expected[name].dtype}")
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"{path}: {name} holds values that are not finite numbers; the file is damaged")


def _check_provenance(provenance: Provenance, model: DPCLIPModel, path: Path) -> None:
    if provenance.fingerprint and provenance.fingerprint != model.backbone_fingerprint:
        raise ValueError(
            f"{path} holds adapters of another backbone: {provenance.backbone or 'unknown'} "
            f"(weights {provenance.pretrained or 'unknown'}, fingerprint {provenance.fingerprint}), the model's has "
            f"fingerprint {model.backbone_fingerprint}. Set --model.backbone, --model.pretrained and --model.quick_gelu to "
            f"those of the adapters"
        )
    own = architecture_of(model)
    for name, value in provenance.architecture.items():
        if name in own and own[name] != value:
            raise ValueError(
                f"{path} holds adapters trained with {name}={value}, the model has {own[name]}: set --model.{name} {value}"
            )
