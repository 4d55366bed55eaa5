"""Adapters into and out of models: what is written with them, and what is checked before they are put on a backbone."""

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from anomalib_dpclip.adapter_file import Adapters, Provenance, read_adapters, write_adapters
from anomalib_dpclip.provenance import PACKAGES
from anomalib_dpclip.torch_model import DPCLIPModel

if TYPE_CHECKING:
    from anomalib_dpclip.lightning_model import DPCLIP


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
    return {name: version(name) for name in PACKAGES}


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
    torch_model, calibration, own = _parts(model)
    check_provenance(adapters.provenance, torch_model, path)
    check_tensors(adapters.tensors, adapter_tensors(torch_model), path)
    if calibration is not None:
        # Without one in the file, none: that of other adapters would be wrong here.
        fresh = type(calibration)().state_dict()
        stored = adapters.calibration or fresh
        check_tensors(stored, fresh, path)
        for name in ("map_knots", "score_knots"):
            if not (stored[name].diff() > 0).all():
                raise ValueError(f"{path}: its calibration has {name} that do not ascend; the file is damaged")
        calibration.load_state_dict(stored)
    torch_model.load_state_dict(adapters.tensors, strict=False)  # checked above; the backbone is not in the file
    provenance = adapters.provenance
    if not provenance.fingerprint:  # a published file: from here on its adapters belong to this backbone
        provenance = replace(own, epochs=provenance.epochs, learned_from=[], hyper_parameters={})
    if torch_model is not model:
        model.provenance = provenance
    return provenance


def _parts(model: "DPCLIP | DPCLIPModel") -> tuple[DPCLIPModel, Any, Provenance]:
    if isinstance(model, DPCLIPModel):
        provenance = Provenance(
            fingerprint=model.backbone_fingerprint,
            architecture=architecture_of(model),
            versions=package_versions(),
        )
        return model, None, provenance
    return model.model, getattr(model.post_processor, "auxiliary_calibration", None), model.provenance


def check_tensors(found: Mapping[str, Any], expected: Mapping[str, Tensor], path: Path) -> None:
    """Compare names, shapes and values of tensors with what a model has.

    Raises:
        ValueError: At the first difference; names the file, the tensor and both shapes.
    """
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys(), key=str)
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
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise ValueError(f"{path}: {name} is not a plain dense tensor")
        # In the model's type: a finite double may be too large for it.
        if not value.to(expected[name].dtype).isfinite().all():
            raise ValueError(f"{path}: {name} holds values that are not finite numbers; the file is damaged")


def check_provenance(provenance: Provenance, model: DPCLIPModel, path: Path) -> None:
    """Make sure that adapters belong to a model's backbone and architecture.

    Args:
        provenance: Of the adapters.
        model: The model.
        path: Of the adapters, for the message.

    Raises:
        ValueError: If they were trained with another backbone or another architecture; says with which.
    """
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
