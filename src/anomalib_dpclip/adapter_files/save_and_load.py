"""Adapters into and out of models."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from anomalib_dpclip.adapter_files.adapter_file import AdapterFile, Provenance
from anomalib_dpclip.adapter_files.compatibility import architecture_of, check_provenance, check_tensors, other_arguments
from anomalib_dpclip.adapter_files.hub import local_file
from anomalib_dpclip.adapter_files.read_and_write import read_adapters, write_adapters
from anomalib_dpclip.clip.preprocessing import Preprocessing
from anomalib_dpclip.files.measured_by import package_versions
from anomalib_dpclip.method.torch_model import DPCLIPModel

logger = logging.getLogger(__name__)


def adapter_tensors(model: DPCLIPModel) -> dict[str, Tensor]:
    """Adapters and projectors by their published names."""
    return {name: value for name, value in model.state_dict().items() if name.startswith(model.adapter_prefixes)}


def save_adapters(model: Any, path: str | Path) -> Path:
    """Write a model's adapters, and what else its predictions depend on, atomically: the whole file or none.

    Args:
        model: `DPCLIP` or `DPCLIPModel`, trained or not.
        path: File to write, ``.safetensors``, or ``.pth`` for the published format (which has no provenance).

    Returns:
        The path.

    Raises:
        ValueError: For another suffix.
    """
    torch_model, calibration, provenance = _parts(model)
    stored = {} if calibration is None else calibration.state_dict()
    return write_adapters(AdapterFile(adapter_tensors(torch_model), stored, provenance.with_arguments(_arguments(model))), path)


def load_adapters(model: Any, path: str | Path, overridden: Collection[str] = frozenset()) -> Provenance:
    """Put adapters from a file into a model, all or nothing.

    Args:
        model: `DPCLIP` or `DPCLIPModel`.
        path: Our ``.safetensors``, a Lightning ``.ckpt``, a published ``.pth``, or a file on the Hugging Face hub, see
            `hub_file`. Nothing in it is executed.
        overridden: Names of arguments of the model that may differ from the file's: thresholds in it are then of other
            predictions, which is logged.

    Returns:
        Where the adapters come from.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is none of these, is damaged, is of a newer format, its adapters do not belong to the model's
            backbone, or the model has other arguments that predictions depend on.
    """
    file = local_file(path)
    adapters = read_adapters(file)
    torch_model, calibration, own = _parts(model)
    provenance = adapters.provenance
    check_provenance(provenance, torch_model, file)
    check_tensors(adapters.tensors, adapter_tensors(torch_model), file)
    others = other_arguments(provenance, _arguments(model), file, overridden, torch_model.backbone.patch_size)
    learned_with = Preprocessing.from_dict(provenance.preprocessing, str(file))
    if calibration is not None:
        _load_calibration(calibration, adapters, file)
        if others and calibration.is_set and _leaves_out_thresholds(calibration, others, file):
            provenance = replace(provenance, calibration_domain="", calibration_basis="")
    torch_model.load_state_dict(adapters.tensors, strict=False)  # checked above; the backbone is not in the file
    says_its_backbone = bool(provenance.fingerprint)
    if not says_its_backbone:  # a published file: from here on its adapters belong to this backbone
        provenance = replace(own, epochs=provenance.epochs, learned_from=[], hyper_parameters={})
    if not isinstance(model, DPCLIPModel):
        model.provenance = provenance
        if says_its_backbone:
            _prepare_images_as(learned_with, model.pre_processor, file)
        model.adopt_adapters(str(path))
    return provenance


def _load_calibration(calibration: Any, adapters: AdapterFile, file: Path) -> None:
    """Take over the calibration in a file. Without one in the file, none: that of other adapters would be wrong here."""
    fresh = type(calibration)()
    stored = adapters.calibration or fresh.state_dict()
    check_tensors(stored, fresh.state_dict(), file)
    fresh.load_state_dict(stored)
    fresh.require_valid(file)
    calibration.load_state_dict(stored)
    calibration.threshold_basis = adapters.provenance.calibration_basis


def _leaves_out_thresholds(calibration: Any, others: Mapping[str, str], file: Path) -> bool:
    """Say that thresholds are of other arguments, and forget them where images had another size: scores are others there."""
    leaves = "image_size" in others
    what = ("are of %s and are left out" if leaves else "are of %s") % ", ".join(others.values())
    logger.warning("the thresholds in %s %s: validate the model to set its own", file, what)
    if leaves:
        calibration.load_state_dict(type(calibration)().state_dict())
        calibration.threshold_basis = ""
    return leaves


def _prepare_images_as(learned_with: Preprocessing, pre_processor: Any, path: Path) -> None:
    own = getattr(pre_processor, "preprocessing", learned_with)
    if own != learned_with:
        message = "%s learned from images prepared with %s, and so are the model's now, not with %s"
        logger.warning(message, path, learned_with, own)
        pre_processor.use_preprocessing(learned_with)


def _arguments(model: Any) -> Mapping[str, Any]:
    """What predictions depend on, as plain data by name; ``None`` for what follows a file or the data."""
    return {} if isinstance(model, DPCLIPModel) else model.configuration.as_dict()


def _parts(model: Any) -> tuple[DPCLIPModel, Any, Provenance]:
    """Where adapters work, where their calibration does if anywhere, and where they come from."""
    if not isinstance(model, DPCLIPModel):
        return model.model, getattr(model.post_processor, "auxiliary_calibration", None), model.provenance
    architecture, versions = architecture_of(model), package_versions()
    return model, None, Provenance(fingerprint=model.backbone_fingerprint, architecture=architecture, versions=versions)
