"""Adapters into and out of models, and whether they belong there: backbone, architecture, tensors, arguments."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from anomalib_dpclip.adapter_files.adapter_file import AdapterFile, Provenance
from anomalib_dpclip.adapter_files.hub import local_file
from anomalib_dpclip.adapter_files.read_and_write import read_adapters, write_adapters
from anomalib_dpclip.clip.loading import default_image_size
from anomalib_dpclip.clip.pretraining import Preprocessing
from anomalib_dpclip.files.measured_by import package_versions
from anomalib_dpclip.files.plain_data import plain_data
from anomalib_dpclip.files.tensors import difference_of_tensors, is_plain_tensor
from anomalib_dpclip.method.torch_model import DPCLIPModel

logger = logging.getLogger(__name__)

# Arguments that may differ from the file's: adapters are there to be used on other targets.
_OF_THE_TARGET = frozenset({"class_name", "domain", "min_area"})


def architecture_of(model: DPCLIPModel) -> dict[str, Any]:
    """Arguments of a model that its adapters, and the thresholds beside them, only make sense with."""
    chosen = {name: getattr(model, name) for name in ("adapter_weight", "projector_activation", "grn_pooling", "detection")}
    return {"adapter_layers": list(model.adapter_layers), "tap_layers": list(model.tap_layers), **chosen}


def adapter_tensors(model: DPCLIPModel) -> dict[str, Tensor]:
    """Adapters and projectors by their published names."""
    return {name: value for name, value in model.state_dict().items() if name.startswith(model.adapter_prefixes)}


def save_adapters(model: Any, path: str | Path) -> Path:
    """Write a model's adapters, and what else its predictions depend on, atomically: the whole file or none.

    Args:
        model: `DPCLIP` or `DPCLIPModel`, trained or not.
        path: File to write, which comes back: ``.safetensors``, or ``.pth`` for the published format (which has no provenance).
    """
    torch_model, calibration, provenance, arguments = _parts(model)
    stored = {} if calibration is None else calibration.state_dict()
    return write_adapters(AdapterFile(adapter_tensors(torch_model), stored, provenance.with_arguments(arguments)), path)


def load_adapters(model: Any, path: str | Path, overridden: Collection[str] = frozenset()) -> Provenance:
    """Put adapters from a file into a model, all or nothing; where they come from.

    Args:
        model: `DPCLIP` or `DPCLIPModel`.
        path: Our ``.safetensors``, a Lightning ``.ckpt``, a published ``.pth``, or a file on the Hugging Face hub, see
            `hub_file`. Nothing in it is executed.
        overridden: Names of arguments of the model that may differ from the file's: thresholds in it are then of other
            predictions, which is logged.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is none of these, is damaged, is of a newer format, its adapters do not belong to the model's
            backbone, or the model has other arguments that predictions depend on.
    """
    file = local_file(path)
    adapters = read_adapters(file)
    torch_model, calibration, own, arguments = _parts(model)
    provenance = adapters.provenance
    check_provenance(provenance, torch_model, file)
    check_tensors(adapters.tensors, adapter_tensors(torch_model), file)
    others = _other_arguments(provenance, arguments, file, overridden, torch_model.backbone.patch_size)
    learned_with = Preprocessing.from_dict(provenance.preprocessing, str(file))
    if calibration is not None:
        fresh = type(calibration)()  # without a calibration in the file none: that of other adapters would be wrong here
        # The first files do not name the weight.
        stored = {"detection_weight": fresh.detection_weight, **(adapters.calibration or fresh.state_dict())}
        check_tensors(stored, fresh.state_dict(), file)
        fresh.load_state_dict(stored)
        fresh.require_valid(file)
        calibration.load_state_dict(stored)
        calibration.threshold_basis = provenance.calibration_basis
        if others and calibration.is_set:
            leaves = "image_size" in others  # scores are others there
            what = ("are of %s and are left out" if leaves else "are of %s") % ", ".join(others.values())
            logger.warning("the thresholds in %s %s: validate the model to set its own", file, what)
            if leaves:
                calibration.load_state_dict(type(calibration)().state_dict())
                calibration.threshold_basis = ""
                provenance = replace(provenance, calibration_domain="", calibration_basis="")
    torch_model.load_state_dict(adapters.tensors, strict=False)  # checked above; the backbone is not in the file
    is_published = not provenance.fingerprint
    if is_published:  # it does not say its backbone: from here on its adapters belong to this one
        provenance = replace(own, epochs=provenance.epochs, learned_from=[], hyper_parameters={})
    if not isinstance(model, DPCLIPModel):
        model.provenance = provenance
        prepared_as = getattr(model.pre_processor, "preprocessing", learned_with)
        if prepared_as != learned_with and not is_published:
            message = "%s learned from images prepared with %s, and so are the model's now, not with %s"
            logger.warning(message, file, learned_with, prepared_as)
            model.pre_processor.use_preprocessing(learned_with)
        model.adopt_adapters(str(path))
    return provenance


def check_tensors(found: Mapping[str, Any], expected: Mapping[str, Tensor], path: Path) -> None:
    """Compare names, shapes and values of tensors with a model's; a `ValueError` names the file and the first difference."""
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
    """Make sure that adapters belong to a model's backbone and architecture; a `ValueError` says to which they do."""
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


def _other_arguments(
    provenance: Provenance, own: Mapping[str, Any], path: Path, overridden: Collection[str], patch_size: int
) -> dict[str, str]:
    """Arguments that predictions depend on and that differ from the model's own, by name, each with both values in words."""
    # A file from before it was always said is of the backbone's default image size.
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


def _parts(model: Any) -> tuple[DPCLIPModel, Any, Provenance, dict[str, Any]]:
    """Where adapters work, their calibration if there is one, their origin, and the arguments that predictions depend on."""
    if not isinstance(model, DPCLIPModel):
        calibration = getattr(model.post_processor, "auxiliary_calibration", None)
        return model.model, calibration, model.provenance, model.configuration.as_dict()
    architecture, versions = architecture_of(model), package_versions()
    return model, None, Provenance(fingerprint=model.backbone_fingerprint, architecture=architecture, versions=versions), {}
