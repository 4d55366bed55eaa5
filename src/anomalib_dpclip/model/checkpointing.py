"""What DPCLIP's checkpoints hold: adapters, prototypes, calibration and provenance, without the frozen backbone."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from lightning.pytorch.trainer.states import TrainerFn

from anomalib_dpclip.adapter_files.adapter_file import PROVENANCE_KEY, THRESHOLD_BASIS_KEY, Provenance
from anomalib_dpclip.adapter_files.compatibility import check_provenance
from anomalib_dpclip.adapter_files.read_and_write import threshold_basis_in
from anomalib_dpclip.method.anomaly_map import Detection
from anomalib_dpclip.method.domain import DEFAULT_DOMAIN, Domain
from anomalib_dpclip.method.unadapted import UNADAPTED
from anomalib_dpclip.post_processing.calibration import Calibration
from anomalib_dpclip.post_processing.post_processor import DPCLIPPostProcessor
from anomalib_dpclip.references.few_shot import KnowsReferences

logger = logging.getLogger(__name__)

BACKBONE_PREFIX = "model.backbone."

CHECKPOINT = Path("the checkpoint")
"""What messages call it: Lightning does not tell the hooks its path."""

DOMAIN_KEY = "domain"
"""Beside the provenance in a checkpoint: the domain of the thresholds in force."""

CLASS_KEY = "anchor_class"
"""Beside it too: what the text anchors in force are of."""

# None of these belongs to the model, and a path of one machine would keep a checkpoint from being loaded on another.
_NOT_OF_THE_MODEL = ("weights", "auxiliary", "auxiliary_root", "few_shot_source", "ignore", "export_classes")


class SavesAdapters(KnowsReferences):
    """Lightning's hooks of `DPCLIP` for saving and loading."""

    pre_processor: Any
    chosen_detection: Detection | None
    is_trained_here = False
    _went_on_from: Any = None

    def on_train_end(self) -> None:
        """Remember that there is something to test that no earlier checkpoint holds."""
        self.is_trained_here = True

    def keep_hyper_parameters(self, resolved: Mapping[str, Any]) -> None:
        """Keep, as hyper-parameters, what another machine can build the model from.

        Args:
            resolved: Values that stand for what was left to a file or to the defaults.
        """
        self.hparams.update(resolved)
        for name in _NOT_OF_THE_MODEL:
            if self.hparams.get(name) != UNADAPTED:
                self.hparams.pop(name, None)
        for name, value in self.hparams.items():
            # Tuples, and the lists of benchmark configs, which are OmegaConf's.
            if isinstance(value, Sequence) and not isinstance(value, str):
                self.hparams[name] = list(value)
        self.save_hyperparameters(self.hparams)  # renews the copy that loggers are given

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Everything but the frozen backbone, which comes from its own weights."""
        state = super().state_dict(*args, **kwargs)
        prefix = kwargs.get("prefix", args[1] if len(args) > 1 else "") + BACKBONE_PREFIX
        for name in [name for name in state if name.startswith(prefix)]:
            del state[name]
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a state that has no backbone; anything else that is missing or too much is an error."""
        self.fit_memory_to(state_dict)
        self.fit_corrections_to(state_dict)
        ignored = self.fit_ignored_to(state_dict)
        backbone = {BACKBONE_PREFIX + name: value for name, value in self.model.backbone.state_dict().items()}
        return super().load_state_dict({**backbone, **state_dict, **ignored}, strict=strict, assign=assign)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add where the adapters come from, and of the thresholds in force the domain and what they rest on."""
        super().on_save_checkpoint(checkpoint)
        beside: dict[str, str] = {DOMAIN_KEY: self.model.domain, CLASS_KEY: self.anchor_class}
        if isinstance(self.post_processor, DPCLIPPostProcessor):
            beside[THRESHOLD_BASIS_KEY] = self.post_processor.calibration.threshold_basis
        checkpoint[PROVENANCE_KEY] = asdict(self.provenance) | beside

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over provenance, calibration and domain.

        Raises:
            ValueError: If the checkpoint is not DP-CLIP's, was made with another backbone, architecture, image size or
                domain, or is damaged.
        """
        trainer = self._trainer
        if trainer is not None and trainer.state.fn == TrainerFn.FITTING:
            self._went_on_from = trainer.ckpt_path
        elif trainer is not None and self.is_trained_here and trainer.ckpt_path == self._went_on_from:
            self._keep_what_was_trained(checkpoint)
            return
        saved = checkpoint.get(PROVENANCE_KEY)
        if saved is None:
            raise ValueError("the checkpoint is not one of DPCLIP: it lacks its provenance. Which model wrote it?")
        super().on_load_checkpoint(checkpoint)
        self._check_unadapted(checkpoint)
        provenance = Provenance.from_dict(saved, CHECKPOINT)
        self._follow_detection(provenance.architecture.get("detection", "projector"))
        check_provenance(provenance, self.model, CHECKPOINT)
        self._check_image_size()
        self._check_domain(saved.get(DOMAIN_KEY, DEFAULT_DOMAIN), checkpoint.get("state_dict", {}))
        self.provenance = provenance
        self.set_domain(saved.get(DOMAIN_KEY, DEFAULT_DOMAIN))
        self.anchor_class = str(saved.get(CLASS_KEY, ""))
        if isinstance(self.post_processor, DPCLIPPostProcessor):
            self.post_processor.calibration.threshold_basis = threshold_basis_in(saved, CHECKPOINT)
            self.post_processor.auxiliary_calibration.threshold_basis = provenance.calibration_basis

    def _keep_what_was_trained(self, checkpoint: dict[str, Any]) -> None:
        """`anomalib train --ckpt_path X` goes on from X and then tests X: test what has been trained instead."""
        logger.warning("testing the model as it was trained, not %s, which the training went on from", self._went_on_from)
        checkpoint["state_dict"] = self.state_dict()
        checkpoint["callbacks"] = {}

    def _check_unadapted(self, checkpoint: Mapping[str, Any]) -> None:
        is_unadapted = checkpoint.get("hyper_parameters", {}).get("weights") == UNADAPTED
        if is_unadapted and self.weights != UNADAPTED:
            raise ValueError(f"the checkpoint is of CLIP without adapters: say --model.weights {UNADAPTED} beside --ckpt_path")
        if self.weights == UNADAPTED and not is_unadapted:
            raise ValueError(f"the checkpoint holds adapters: leave --model.weights {UNADAPTED} out")

    def _follow_detection(self, saved: Any) -> None:
        """Nobody has to say again what the image score looks at: there are no weights that it depends on."""
        if self.chosen_detection is None and self.weights != UNADAPTED and saved in get_args(Detection):
            self.model.detection = saved
            self.keep_hyper_parameters({"detection": saved})

    def _check_image_size(self) -> None:
        size = getattr(self.pre_processor, "image_size", self.model.input_size)
        if size != self.model.input_size:
            raise ValueError(
                f"the checkpoint is calibrated on images of {size}, the model takes {self.model.input_size}: give it as "
                f"--model.weights instead of --ckpt_path to calibrate anew, or set --model.image_size and --model.tiles as in "
                f"training"
            )

    def _check_domain(self, domain: Domain, state: Mapping[str, Any]) -> None:
        calibrations = {name: _calibration_in(state, name) for name in ("calibration", "auxiliary_calibration")}
        for calibration in calibrations.values():
            calibration.require_valid(CHECKPOINT)
        if calibrations["calibration"].is_set and self.chosen_domain not in {None, domain}:
            raise ValueError(
                f"the checkpoint's thresholds were set with domain={domain}: leave --model.domain out, or give the file as "
                f"--model.weights instead of --ckpt_path to calibrate anew with {self.chosen_domain}"
            )


def _calibration_in(state: Mapping[str, Any], name: str) -> Calibration:
    """A calibration of a checkpoint's post-processor; unset if it has another kind of post-processor, or none."""
    prefix = f"post_processor.{name}."
    stored = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    calibration = Calibration()
    if stored:
        calibration.load_state_dict(stored)
    return calibration


def plain_hyper_parameters(hyper_parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What an adapter file can tell of arguments: a component given as an object stays behind."""
    plain = str | int | float | bool | list | None
    return {name: value for name, value in hyper_parameters.items() if isinstance(value, plain)}
