"""How DPCLIP learns: the auxiliary set in the place of the target's images, the objective, prototypes and their schedule."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from anomalib.data import ImageBatch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import DataLoader

from anomalib_dpclip.adapter_files.adapter_file import Provenance
from anomalib_dpclip.adapter_files.save_and_load import adapter_tensors
from anomalib_dpclip.auxiliary.auxiliary_set import AuxiliarySet, learned_from
from anomalib_dpclip.auxiliary.loader import auxiliary_loader
from anomalib_dpclip.callbacks.deferred import Deferred
from anomalib_dpclip.callbacks.resuming import planned_epochs
from anomalib_dpclip.clip.preprocessing import OPENAI
from anomalib_dpclip.method.anomaly_map import anomaly_map, detection_score, text_margin_grid
from anomalib_dpclip.method.objective import Objective, training_objective
from anomalib_dpclip.method.prototypes import Prototypes, TokenDirections
from anomalib_dpclip.model.checkpointing import plain_hyper_parameters
from anomalib_dpclip.model.seed import seed_or_global
from anomalib_dpclip.model.target import KnowsTarget
from anomalib_dpclip.post_processing.calibration_statistics import CalibrationStatistics
from anomalib_dpclip.post_processing.post_processor import DPCLIPPostProcessor

logger = logging.getLogger(__name__)

EPOCHS = 20
"""Training epochs of the method, used unless ``--trainer.max_epochs`` says otherwise."""

LIGHTNING_DEFAULT_EPOCHS = 1000
"""What Lightning sets when nobody asks for a number of epochs; it cannot be told apart from asking for 1000."""

ADAM_BETAS = (0.5, 0.999)
"""Of the published training."""

UNTRAINABLE = ("16-true", "64-true")
"""Half-precision weights overflow in the focal loss; CLIP's towers, the losses' constants and anchors are no doubles."""

UNNAMED = "unnamed"
"""What was learned from, where the user gave batches of his own."""

DECAY = 0.5
"""What the learning rate is multiplied with at each milestone, as published."""


class LearnsAdapters(KnowsTarget):
    """Lightning's training hooks of `DPCLIP`, whose attributes they use."""

    prototypes: Prototypes
    provenance: Provenance
    auxiliary: AuxiliarySet
    batch_size: int
    num_workers: int
    seed: int
    chosen_seed: int | None
    learning_rate: float
    milestones: tuple[int, ...]
    decoupling_weight: float
    temperature: float
    pre_processor: Any
    _calibrated_step = -1

    def prepare_data(self) -> None:
        """Download the auxiliary set before it is learned from."""
        if self.trainer.state.fn == TrainerFn.FITTING and self._learns_from_auxiliary():
            self.auxiliary.prepare(self.target)

    def setup(self, stage: str) -> None:
        """Learn from the auxiliary set instead of the target's training images, for as many epochs as published.

        Raises:
            ValueError: If the precision is one that the losses cannot be computed in.
        """
        super().setup(stage)
        if stage != "fit":
            return
        if self.trainer.precision in UNTRAINABLE:
            raise ValueError(f"--trainer.precision {self.trainer.precision} cannot train: use bf16-mixed or 32-true")
        self._follow_global_seed()
        if self._learns_from_auxiliary():
            # Lightning asks the data module first. This makes it ask the model, and leaves the user's module as it is.
            self.trainer.fit_loop._data_source.instance = self  # noqa: SLF001
        else:
            self.provenance = replace(self.provenance, learned_from=[UNNAMED])
        if self.trainer.max_epochs == LIGHTNING_DEFAULT_EPOCHS:
            self.trainer.fit_loop.max_epochs = EPOCHS

    def on_fit_start(self) -> None:
        """Decide the domain, and make text anchors for the user's own batches, which may not say what they show."""
        self.resolve_domain(calibrating=True)
        if not self._learns_from_auxiliary():
            self.resolve_class()

    def _follow_global_seed(self) -> None:
        """Where no argument names a seed: `anomalib benchmark` sets the global one only after it has built the model."""
        seed = seed_or_global(self.chosen_seed)
        if seed == self.seed:
            return
        before = self.model.initial_adapters(self.seed)
        if all(
            torch.equal(value, before[name]) for name, value in adapter_tensors(self.model).items()
        ):  # none loaded or learned
            self.model.load_state_dict(self.model.initial_adapters(seed), strict=False)
        self.seed = self.auxiliary.seed = seed

    def train_dataloader(self) -> DataLoader:
        """Batches of the auxiliary set.

        Raises:
            FileNotFoundError: If the set is not there.
            ValueError: If it cannot be learned from, or shares an image with the target.
        """
        preprocessing = getattr(self.pre_processor, "preprocessing", OPENAI)
        dataset = self.auxiliary.dataset(self.target, self.class_name, self.model.backbone.image_size, preprocessing)
        self.provenance = replace(
            self.provenance,
            learned_from=learned_from(dataset.samples),
            hyper_parameters=plain_hyper_parameters(self.hparams) | {"seed": self.seed},
        )
        trainer = self.trainer
        loader = auxiliary_loader(
            dataset, self.batch_size, self.num_workers, self.seed, trainer.world_size, trainer.global_rank
        )
        # Lightning tells the sampler the epoch after worker processes have begun to read: too late in a resumed run.
        loader.sampler.set_epoch(trainer.fit_loop.epoch_progress.current.processed)  # type: ignore[attr-defined]
        # `anomalib benchmark` shows log lines and no progress bar, and warns of 1,000 epochs where nobody named a number.
        logger.info(
            "learning from %d images of %d classes: %s epochs of %d steps",
            *(len(dataset), len(self.provenance.learned_from), trainer.max_epochs, len(loader)),
        )
        return loader

    def _learns_from_auxiliary(self) -> bool:
        """Whether the user gave no loader of training batches of his own."""
        source = self.trainer.fit_loop._data_source  # noqa: SLF001
        return self.target is not None or source.is_module()

    def configure_optimizers(self) -> Any:
        """Adam over adapters and projectors; the learning rate halves at the milestones, counted in optimiser steps."""
        learned = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(learned, lr=self.learning_rate, betas=ADAM_BETAS)
        scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(self.milestones), gamma=DECAY)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        """Start collecting the auxiliary images' scores, from which the adapters' default calibration is made."""
        interval = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        self._seen = CalibrationStatistics("the auxiliary set, which the adapters learn from").to(self.device)
        self._scores: Deferred = Deferred(interval, self._seen.update_all)

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Mapping[str, Any]:
        """``L = L_cls + sum over taps (L_seg) + 0.1 sum over taps (L_dec)``."""
        del batch_idx
        anchors = self.anchors_of(batch)
        if anchors.ndim == 2:  # one class for all
            anchors = anchors.expand(len(batch.image), -1, -1)
        objective = training_objective(
            self.model,
            self.prototypes,
            batch.image,
            batch.gt_mask.bool(),
            batch.gt_label,
            anchors,
            getattr(batch, "has_mask", None),
            self.decoupling_weight,
            self.temperature,
        )
        self._collect(objective, anchors, batch.gt_label)
        self.log("train_loss", objective.total, prog_bar=True, on_epoch=True, batch_size=len(batch))
        parts = {
            "train_loss_cls": objective.classification,
            "train_loss_seg": objective.segmentation,
            "train_loss_dec": objective.decoupling,
            "prototype_cosine": self.prototypes.cosine,
        }
        self.log_dict(parts, batch_size=len(batch))
        return {"loss": objective.total, "directions": objective.directions}

    def on_train_batch_end(self, outputs: Mapping[str, Any], batch: ImageBatch, batch_idx: int) -> None:
        """Move the prototypes, once a batch, after the optimiser's step."""
        del batch, batch_idx
        self.prototypes.update(TokenDirections(*outputs["directions"]))

    def on_validation_start(self) -> None:
        """Before the target is calibrated on, and a checkpoint perhaps written: what the adapters carry is of this moment."""
        super().on_validation_start()
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            self._calibrate_on_auxiliary()
            self._calibrated_step = self.global_step

    def on_train_epoch_end(self) -> None:
        """Set the adapters' default calibration; if no validation has seen these adapters, it is the one in force."""
        self._calibrate_on_auxiliary()
        if self._calibrated_step != self.global_step and isinstance(self.post_processor, DPCLIPPostProcessor):
            self.post_processor.use_auxiliary_calibration()

    def _calibrate_on_auxiliary(self) -> None:
        """Calibrate on the images that this epoch has learned from so far."""
        self._scores.flush()
        epochs = self.current_epoch + int(self.trainer.fit_loop.epoch_loop.batch_progress.is_last_batch)
        max_epochs = planned_epochs(self.trainer, epochs)
        self.provenance = replace(self.provenance, epochs=epochs, max_epochs=max_epochs, calibration_domain=self.model.domain)
        if isinstance(self.post_processor, DPCLIPPostProcessor):
            calibration = self.post_processor.auxiliary_calibration
            calibration.set_from(self._seen, self.model.domain)
            self.provenance = replace(self.provenance, calibration_basis=calibration.threshold_basis)

    @torch.no_grad()
    def _collect(self, objective: Objective, anchors: Tensor, label: Tensor) -> None:
        grid = self.model.backbone.grid
        # On the token grid: a resized map has the same range, and costs 190 times as much.
        maps = anomaly_map(text_margin_grid(objective.taps, anchors, grid, self.model.domain))
        masks = (objective.token_mask == 1).unflatten(1, grid)
        self._scores.add((maps, detection_score(objective.detection, anchors), label, masks))
