"""How a `DPCLIP`, the `module`, learns from the auxiliary set, not from the target: batches, optimiser, losses, seed."""

import logging
from dataclasses import replace
from typing import Any

import torch
from anomalib.data import AnomalibDataModule, ImageBatch
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader

from anomalib_dpclip.adapter_files.save_and_load import adapter_tensors
from anomalib_dpclip.auxiliary.auxiliary_set import learned_from
from anomalib_dpclip.auxiliary.dataset import auxiliary_loader
from anomalib_dpclip.clip.pretraining import OPENAI
from anomalib_dpclip.files.tensors import same_tensors
from anomalib_dpclip.method.objective import training_objective
from anomalib_dpclip.method.prototypes import TokenDirections
from anomalib_dpclip.model.arguments import seed_or_global

logger = logging.getLogger(__name__)

EPOCHS, ADAM_BETAS, DECAY = 20, (0.5, 0.999), 0.5
"""Of the published training; the learning rate is multiplied with `DECAY` at each milestone."""

LIGHTNING_DEFAULT_EPOCHS = 1000
"""What Lightning sets when nobody asks for a number of epochs; it cannot be told apart from asking for 1000."""

UNTRAINABLE = ("16-true", "64-true")
"""Half-precision weights overflow in the focal loss; CLIP's towers, the losses' constants and anchors are no doubles."""

UNNAMED = "unnamed"
"""What was learned from, where the user gave batches of his own."""


class LearnFromAuxiliary(Callback):
    """Has Lightning ask the model for training batches; the user's data module keeps validation and test.

    A data module without validation images is one that Lightning cannot ask for any: it is then not asked.
    """

    def __init__(self) -> None:
        self._replaced: list[str] = []

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Train as the method does, with the model's loaders in the place of the data module's own."""
        if stage == "fit":
            prepare_training(trainer, pl_module)
        datamodule: Any = getattr(trainer, "datamodule", None)
        if not isinstance(datamodule, AnomalibDataModule):
            return
        loaders = {"train_dataloader": stage == "fit", "val_dataloader": not hasattr(datamodule, "val_data")}
        for name, is_ours in loaders.items():
            if is_ours and name not in vars(datamodule):
                setattr(datamodule, name, getattr(pl_module, name))
                self._replaced.append(name)

    def teardown(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Give the data module its own loaders back."""
        for name in self._replaced:
            vars(getattr(trainer, "datamodule", None)).pop(name, None)
        self._replaced = []

    on_exception = teardown  # Lightning tears nothing down after an error

    def on_train_batch_end(self, _: Trainer, pl_module: Any, outputs: Any, *__: Any) -> None:
        """Move the prototypes, once a batch, after the optimiser's step."""
        pl_module.prototypes.update(TokenDirections(*outputs["directions"]))

    def on_train_end(self, _: Trainer, pl_module: Any) -> None:
        """Remember that there is something to test that no earlier checkpoint holds."""
        pl_module.is_trained_here = True


def prepare_training(trainer: Any, module: Any) -> None:
    """Epochs as published, unless somebody asks for another number; a precision that can learn; the global seed of now."""
    if trainer.precision in UNTRAINABLE:
        raise ValueError(f"--trainer.precision {trainer.precision} cannot train: use bf16-mixed or 32-true")
    if trainer.max_epochs == LIGHTNING_DEFAULT_EPOCHS:
        trainer.fit_loop.max_epochs = EPOCHS
    seed = seed_or_global(module.chosen_seed)  # `anomalib benchmark` sets the global one only after it has built the model
    if seed != module.seed:
        if same_tensors(adapter_tensors(module.model), module.model.initial_adapters(module.seed)):  # none loaded or learned
            module.model.load_state_dict(module.model.initial_adapters(seed), strict=False)
        module.seed = module.auxiliary.seed = seed


def auxiliary_batches(module: Any) -> DataLoader:
    """Batches of the auxiliary set (see `AuxiliarySet.dataset`), and in the model's provenance what they are of."""
    preprocessing = getattr(module.pre_processor, "preprocessing", OPENAI)
    target, trainer = module.datamodule, module.trainer
    if target is None:  # else Lightning has asked the model for it before
        module.auxiliary.prepare(None)
    dataset = module.auxiliary.dataset(target, module.target.class_name, module.model.backbone.image_size, preprocessing)
    module.auxiliary_dataset = dataset
    sources = learned_from(dataset.samples)
    hyper_parameters = {name: value for name, value in module.hparams.items() if value is not None} | {"seed": module.seed}
    module.provenance = replace(module.provenance, learned_from=sources, hyper_parameters=hyper_parameters)
    workers = module.training_options.num_workers
    loader = auxiliary_loader(dataset, module.batch_size, workers, module.seed, trainer.world_size, trainer.global_rank)
    # Lightning tells the sampler the epoch after worker processes have begun to read: too late in a resumed run.
    loader.sampler.set_epoch(trainer.fit_loop.epoch_progress.current.processed)  # type: ignore[attr-defined]
    # `anomalib benchmark` shows log lines and no progress bar, and warns of 1,000 epochs where nobody named a number.
    message = "learning from %d images of %d classes: %s epochs of %d steps"
    logger.info(message, len(dataset), len(sources), trainer.max_epochs, len(loader))
    return loader


def optimizer_and_schedule(module: Any) -> Any:
    """Adam over adapters and projectors; the learning rate halves at the milestones, counted in optimiser steps."""
    options = module.training_options
    learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=options.learning_rate, betas=ADAM_BETAS)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(options.milestones), gamma=DECAY)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def training_step(module: Any, batch: ImageBatch, batch_idx: int) -> dict[str, Any]:  # noqa: ARG001  (Lightning's hook)
    """The loss of a batch, logged: ``L = L_cls + sum over taps (L_seg) + 0.1 sum over taps (L_dec)``.

    Beside it the token ``directions`` that the prototypes move towards after the optimiser's step.
    """
    anchors = module.target.anchors_of(batch, module.device, follow_images=True)
    if anchors.ndim == 2:  # one class for all
        anchors = anchors.expand(len(batch.image), -1, -1)
    objective = training_objective(
        module.model,
        module.prototypes,
        batch.image,
        batch.gt_mask.bool(),  # type: ignore[union-attr]  # labelled batches have masks
        batch.gt_label,
        anchors,
        getattr(batch, "has_mask", None),
        module.training_options.decoupling_weight,
        module.temperature,
    )
    size = len(batch)
    module.log("train_loss", objective.total, prog_bar=True, on_epoch=True, batch_size=size)
    losses = {"cls": objective.classification, "seg": objective.segmentation, "dec": objective.decoupling}
    named = {f"train_loss_{name}": loss for name, loss in losses.items()}
    module.log_dict(named | {"prototype_cosine": module.prototypes.cosine}, batch_size=size)
    return {"loss": objective.total, "directions": objective.directions}
