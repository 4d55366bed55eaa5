"""What checkpoints of `DPCLIP`, the `module`, hold: adapters, prototypes, calibration and provenance, no frozen networks."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch.trainer.states import TrainerFn
from torch import nn

from anomalib_dpclip.adapter_files.adapter_file import PROVENANCE_KEY, UNADAPTED, Provenance
from anomalib_dpclip.adapter_files.save_and_load import check_provenance
from anomalib_dpclip.data_sets.domain import DEFAULT_DOMAIN
from anomalib_dpclip.files.tensors import same_tensors
from anomalib_dpclip.model.configuration import resolve
from anomalib_dpclip.model.good_images import stored_memory
from anomalib_dpclip.model.parts import become
from anomalib_dpclip.model.settled_thresholds import calibration_of
from anomalib_dpclip.post_processing.calibration import Calibration

logger = logging.getLogger(__name__)

FROZEN = ("model.backbone.", "feature_tower.")
"""Beginnings of the names of frozen networks, which come from weights of their own."""

CHECKPOINT = Path("the checkpoint")
"""What messages call it: Lightning does not tell the hooks its path."""

DOMAIN_KEY, CLASS_KEY = "domain", "anchor_class"
"""Beside the provenance in a checkpoint: the domain of the thresholds in force, and what the text anchors are of."""


def provenance_entry(module: Any) -> dict[str, Any]:
    """What a checkpoint says beside its tensors: where the adapters come from, and what the thresholds in force are of."""
    calibration, known = calibration_of(module), asdict(module.provenance.with_arguments(module.configuration.as_dict()))
    known |= {DOMAIN_KEY: module.model.domain, CLASS_KEY: module.target.anchor_class}
    return known if calibration is None else known | calibration.description()


def follow_checkpoint(module: Any, checkpoint: Mapping[str, Any]) -> None:
    """Become what a checkpoint, of which nothing has been taken yet, is of, as far as no argument says otherwise."""
    saved = checkpoint.get(PROVENANCE_KEY)
    if saved is None:
        raise ValueError("the checkpoint is not one of DPCLIP: it lacks its provenance. Which model wrote it?")
    is_unadapted = checkpoint.get("hyper_parameters", {}).get("weights") == UNADAPTED
    if is_unadapted and module.weights != UNADAPTED:
        raise ValueError(f"the checkpoint is of CLIP without adapters: say --model.weights {UNADAPTED} beside --ckpt_path")
    if module.weights == UNADAPTED and not is_unadapted:
        raise ValueError(f"the checkpoint holds adapters: leave --model.weights {UNADAPTED} out")
    configuration = resolve(module.given, CHECKPOINT, Provenance.from_dict(saved, CHECKPOINT))
    if configuration != module.configuration:
        become(module, configuration)


def restore_provenance(module: Any, checkpoint: Mapping[str, Any]) -> None:
    """Take over provenance, class, domain, and what the thresholds are of, if they are of what this model is."""
    saved, state = checkpoint[PROVENANCE_KEY], checkpoint.get("state_dict", {})
    provenance = Provenance.from_dict(saved, CHECKPOINT)
    check_provenance(provenance, module.model, CHECKPOINT)
    _check_images(module, checkpoint.get("anomalib_pre_processor_config") or {})
    made_with, own = provenance.arguments.get("memory_backbone"), module.configuration.memory_backbone
    if made_with != own and any(name.startswith("scorer_state.memory.") for name in state):
        named, asked = (each or "the backbone itself" for each in (made_with, own))
        raise ValueError(
            f"the checkpoint's good photos are remembered by the features of {named}, the model compares by {asked}: leave "
            f"--model.memory_backbone out, or give the photos anew with --model.weights in the place of --ckpt_path"
        )
    domain = saved.get(DOMAIN_KEY, DEFAULT_DOMAIN)
    _check_calibrations(module, domain, state)
    module.provenance = provenance
    module.set_domain(domain)
    module.target.anchor_class = str(saved.get(CLASS_KEY, ""))
    calibration = calibration_of(module)
    if calibration is not None:
        calibration.restore_description(saved, CHECKPOINT)
        module.post_processor.auxiliary_calibration.threshold_basis = provenance.calibration_basis


def _check_images(module: Any, saved: Mapping[str, Any]) -> None:
    """Whether images are prepared as those that the checkpoint was calibrated on."""
    if "image_size" in saved and not hasattr(module.pre_processor, "image_size") and module.pre_processor is not None:
        raise ValueError(
            "the checkpoint is calibrated with DPCLIP's own pre-processor: leave pre_processor out, or give the file as "
            "--model.weights instead of --ckpt_path to calibrate anew"
        )
    size = tuple(getattr(module.pre_processor, "image_size", module.image_size))
    if size != tuple(module.image_size):
        raise ValueError(
            f"the checkpoint is calibrated on images of {size}, the model takes {module.image_size}: give it as "
            f"--model.weights instead of --ckpt_path to calibrate anew, or set --model.image_size and --model.tiles as in "
            f"training"
        )


def _check_calibrations(module: Any, domain: str, state: Mapping[str, Any]) -> None:
    for kind in ("calibration", "auxiliary_calibration"):
        prefix = f"post_processor.{kind}."
        stored = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        calibration = Calibration()
        if stored:  # else the checkpoint has another kind of post-processor, or none
            calibration.load_state_dict(stored)
        calibration.require_valid(CHECKPOINT)
        chosen = module.target.chosen_domain
        if kind == "calibration" and calibration.is_set and chosen not in {None, domain}:
            raise ValueError(
                f"the checkpoint's thresholds were set with domain={domain}: leave --model.domain out, or give the file as "
                f"--model.weights instead of --ckpt_path to calibrate anew with {chosen}"
            )


def make_room(module: Any, state: dict[str, Any]) -> dict[str, Any]:
    """Make room in a model for the memory and the region that a state dict holds, of whatever size.

    The state dict comes back with the frozen networks, and with the model's own region where an argument has named one.
    """
    module.before_references = None
    module.scorer = stored_memory(module, state) or module.text_scorer()
    full = nn.Module.state_dict(module)
    if module.region_options.ignore is None:
        module.region.fit_to(state, "region.")
    else:
        own, stored = ({name: each[name] for name in each if name.startswith("region.")} for each in (full, state))
        if own.keys() != stored.keys() or not same_tensors(own, {name: value.cpu() for name, value in stored.items()}):
            logger.warning(
                "the thresholds of the checkpoint were set without this --model.region.ignore: calibrate with `anomalib "
                "validate`"
            )
        state = {name: value for name, value in state.items() if name not in stored} | own
    return {name: value for name, value in full.items() if name.startswith(FROZEN)} | state


def keep_what_was_trained(module: Any, checkpoint: dict[str, Any]) -> bool:
    """Whether a model stays as it is: `anomalib train --ckpt_path X` goes on from X, and would then test X again."""
    trainer = module.attached_trainer
    if trainer is None:
        return False
    if trainer.state.fn == TrainerFn.FITTING:
        module.went_on_from = trainer.ckpt_path
        return False
    if not module.is_trained_here or trainer.ckpt_path != module.went_on_from:
        return False
    logger.warning("testing the model as it was trained, not %s, which the training went on from", module.went_on_from)
    checkpoint["state_dict"], checkpoint["callbacks"] = module.state_dict(), {}
    return True
