"""Whether adapters from a file belong to a model: its backbone, its architecture, its tensors, its arguments."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from anomalib_dpclip.adapter_files.adapter_file import Provenance, is_plain_tensor
from anomalib_dpclip.clip.loading import default_image_size
from anomalib_dpclip.files.plain_data import plain_data
from anomalib_dpclip.files.tensors import difference_of_tensors
from anomalib_dpclip.method.torch_model import DPCLIPModel

# Arguments that may differ from the file's: adapters are there to be used on other targets.
_OF_THE_TARGET = frozenset({"class_name", "domain", "min_area"})


def architecture_of(model: DPCLIPModel) -> dict[str, Any]:
    """Arguments of a model that its adapters, and the thresholds beside them, only make sense with."""
    return {
        "adapter_layers": list(model.adapter_layers),
        "tap_layers": list(model.tap_layers),
        "adapter_weight": model.adapter_weight,
        "projector_activation": model.projector_activation,
        "grn_pooling": model.grn_pooling,
        "detection": model.detection,
    }


def check_tensors(found: Mapping[str, Any], expected: Mapping[str, Tensor], path: Path) -> None:
    """Compare names, shapes and values of tensors with what a model has.

    Raises:
        ValueError: At the first difference; names the file, the tensor and both shapes.
    """
    if difference := difference_of_tensors(found, expected):
        raise ValueError(f"{path} does not fit the model: {difference} (other adapter_layers, tap_layers or grn_pooling?)")
    for name, value in found.items():
        if value.is_floating_point() != expected[name].is_floating_point():
            raise ValueError(f"{path}: {name} has type {value.dtype} instead of {expected[name].dtype}")
        if not is_plain_tensor(value):
            raise ValueError(f"{path}: {name} is not a plain dense tensor")
        # In the model's type: a finite double may be too large for it.
        if not value.to(expected[name].dtype).isfinite().all():
            raise ValueError(f"{path}: {name} holds values that are not finite numbers; the file is damaged")


def check_provenance(provenance: Provenance, model: DPCLIPModel, path: Path) -> None:
    """Make sure that adapters belong to a model's backbone and architecture.

    Raises:
        ValueError: If they were trained with others; says with which.
    """
    if provenance.fingerprint and provenance.fingerprint != model.backbone_fingerprint:
        raise ValueError(
            f"{path} holds adapters of another backbone: {provenance.backbone or 'unknown'} "
            f"(weights {provenance.pretrained or 'unknown'}, fingerprint {provenance.fingerprint}), the model's has "
            f"fingerprint {model.backbone_fingerprint}. Set --model.backbone, --model.pretrained and --model.clip.quick_gelu "
            f"to those of the adapters"
        )
    own = architecture_of(model)
    earlier = {"detection": "projector"} if provenance.architecture else {}  # files from before it could be chosen
    for name, value in (earlier | provenance.architecture).items():
        if name in own and own[name] != value:
            raise ValueError(
                f"{path} holds adapters trained with {name}={value}, the model has {own[name]}: set "
                f"--model.architecture.{name} {value}"
            )


def other_arguments(
    provenance: Provenance, own: Mapping[str, Any], path: Path, overridden: Collection[str], patch_size: int
) -> dict[str, str]:
    """Compare what predictions depend on.

    Args:
        provenance: Of the adapters.
        own: Arguments of the model, by name; ``None`` for those that follow the file.
        path: Of the adapters, for the message.
        overridden: Names of arguments that were deliberately given other values than the file's.
        patch_size: Of the backbone, whose default image size a file from before it was always said is of.

    Returns:
        Those of them that differ, by name, each with both values in words.

    Raises:
        ValueError: If any other argument differs; names it and both values.
    """
    usual = {"image_size": default_image_size(patch_size, provenance.backbone)} if provenance.fingerprint else {}
    said = {name: value for name, value in (usual | provenance.arguments).items() if value is not None}
    values = plain_data({name: own[name] for name in said if name not in _OF_THE_TARGET and own.get(name) is not None})
    differing = {name: value for name, value in values.items() if value != said[name]}
    for name, value in differing.items():
        if name not in overridden:
            raise ValueError(
                f"{path} holds adapters of a model with {name}={said[name]!r}, the model has {value!r}: give the model the "
                f"same, or none and the file as --model.weights"
            )
    return {name: f"{name}={said[name]!r} (now {value!r})" for name, value in differing.items()}
