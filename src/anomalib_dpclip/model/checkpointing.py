"""What DPCLIP's checkpoints hold: adapters, prototypes, calibration and provenance, without the frozen backbone."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from anomalib_dpclip.adapter_files.compatibility import check_provenance
from anomalib_dpclip.adapter_files.provenance import PROVENANCE_KEY, Provenance
from anomalib_dpclip.model.checkpoint_retention import retain_checkpoints
from anomalib_dpclip.model.few_shot import KnowsReferences

BACKBONE_PREFIX = "model.backbone."

# None of these belongs to the model, and a path of one machine would keep a checkpoint from being loaded on another.
_NOT_OF_THE_MODEL = ("weights", "auxiliary", "auxiliary_root", "few_shot_source")


class SavesAdapters(KnowsReferences):
    """Lightning's hooks of `DPCLIP` for saving and loading."""

    pre_processor: Any
    provenance: Provenance

    def setup(self, stage: str) -> None:
        """Write checkpoints so that a killed process leaves a whole one."""
        super().setup(stage)
        retain_checkpoints(self.trainer.strategy)

    def keep_hyper_parameters(self, unadapted: str) -> None:
        """Keep, as hyper-parameters, what another machine can build the model from.

        Args:
            unadapted: Value of ``weights`` that is no file.
        """
        for name in _NOT_OF_THE_MODEL:
            if self.hparams.get(name) != unadapted:
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
        backbone = {BACKBONE_PREFIX + name: value for name, value in self.model.backbone.state_dict().items()}
        return super().load_state_dict({**backbone, **state_dict}, strict=strict, assign=assign)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add where the adapters come from, and what the anchors show."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[PROVENANCE_KEY] = asdict(self.provenance) | {"domain": self.model.domain}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over provenance and domain.

        Raises:
            ValueError: If the checkpoint is not DP-CLIP's, or was made with another backbone.
        """
        super().on_load_checkpoint(checkpoint)
        saved = checkpoint.get(PROVENANCE_KEY)
        if saved is None:
            raise ValueError("the checkpoint is not one of DPCLIP: it lacks its provenance. Which model wrote it?")
        self.provenance = Provenance.from_dict(saved, Path("the checkpoint"))
        check_provenance(self.provenance, self.model, Path("the checkpoint"))
        size = getattr(self.pre_processor, "image_size", self.model.input_size)
        if size != self.model.input_size:
            raise ValueError(
                f"the checkpoint is calibrated on images of {size}, the model takes {self.model.input_size}: give it as "
                f"--model.weights instead of --ckpt_path to calibrate anew, or set --model.image_size and --model.tiles as in "
                f"training"
            )
        if self.chosen_domain is None:
            self.set_domain(saved.get("domain", "industrial"))


def plain_hyper_parameters(hyper_parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What an adapter file can tell of arguments: a component given as an object stays behind."""
    plain = str | int | float | bool | list | None
    return {name: value for name, value in hyper_parameters.items() if isinstance(value, plain)}
