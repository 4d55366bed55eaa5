"""Learning from the auxiliary set in the place of the target's training images, and the thresholds that adapters carry."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from anomalib.data import AnomalibDataModule
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader, Subset

from anomalib_dpclip.callbacks.resuming import planned_epochs
from anomalib_dpclip.data.items import NamedImageBatch
from anomalib_dpclip.method.prototypes import TokenDirections
from anomalib_dpclip.model.training.learning import follow_global_seed, prepare_trainer
from anomalib_dpclip.model.training.text_weights import learn_text_weights
from anomalib_dpclip.post_processing.calibration_statistics import CalibrationStatistics
from anomalib_dpclip.scorers.region import Region
from anomalib_dpclip.scorers.text_weight import OWN_TOKENS

CALIBRATION_IMAGES = 200
"""Most auxiliary images that thresholds are set from at an epoch's end."""

BATCH = 8


class LearnFromAuxiliary(Callback):
    """Has Lightning ask the model for training batches; the user's data module keeps validation and test.

    A data module without validation images is one that Lightning cannot ask for any: it is then not asked.
    """

    def __init__(self) -> None:
        self._replaced: list[str] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Train as the method does, with the model's loaders in the place of the data module's own."""
        if stage == "fit":
            prepare_trainer(trainer)
            follow_global_seed(pl_module)
        datamodule: Any = getattr(trainer, "datamodule", None)
        if not isinstance(datamodule, AnomalibDataModule):
            return
        if stage == "fit":
            self._replace(datamodule, "train_dataloader", pl_module.train_dataloader)
        if not hasattr(datamodule, "val_data"):
            self._replace(datamodule, "val_dataloader", pl_module.val_dataloader)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the data module its own loaders back."""
        del pl_module, stage
        for name in self._replaced:
            vars(getattr(trainer, "datamodule", None)).pop(name, None)
        self._replaced = []

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the data module its own loaders back: Lightning tears nothing down after an error."""
        del exception
        self.teardown(trainer, pl_module, "fit")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the prototypes, once a batch, after the optimiser's step."""
        del trainer, batch, batch_idx
        module: Any = pl_module
        module.prototypes.update(TokenDirections(*outputs["directions"]))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember that there is something to test that no earlier checkpoint holds."""
        del trainer
        module: Any = pl_module
        module.is_trained_here = True

    def _replace(self, datamodule: Any, name: str, loader: Any) -> None:
        if name not in vars(datamodule):
            setattr(datamodule, name, loader)
            self._replaced.append(name)


class AuxiliaryCalibration(Callback):
    """Sets the thresholds that adapters carry, on plain auxiliary images in evaluation mode, whenever the adapters have moved.

    At an epoch's end, or before a validation in its midst: a checkpoint may be written then.
    """

    def __init__(self) -> None:
        self._step = -1

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before the target is calibrated on, and a checkpoint perhaps written."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._calibrate(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Where no validation has seen these adapters, their own thresholds are those in force."""
        if self._step != trainer.global_step:
            self._calibrate(trainer, pl_module)
            processor: Any = pl_module.post_processor
            if hasattr(processor, "use_auxiliary_calibration"):
                processor.use_auxiliary_calibration()

    def _calibrate(self, trainer: Trainer, module: Any) -> None:
        if trainer.sanity_checking:
            return
        self._step = trainer.global_step
        epochs = module.current_epoch + int(trainer.fit_loop.epoch_loop.batch_progress.is_last_batch)
        known = replace(module.provenance, epochs=epochs, max_epochs=planned_epochs(trainer, epochs))
        processor = module.post_processor
        if hasattr(processor, "auxiliary_calibration") and module.auxiliary_dataset is not None:
            with trainer.precision_plugin.forward_context():
                statistics = auxiliary_statistics(module, trainer.global_rank, trainer.world_size)
                weights = {module.configuration.memory_backbone or OWN_TOKENS: learn_text_weights(module)}
            processor.auxiliary_calibration.set_from(statistics, module.model.domain)
            basis = processor.auxiliary_calibration.threshold_basis
            known = replace(known, calibration_domain=module.model.domain, calibration_basis=basis, text_weights=weights)
        module.provenance = known


@torch.no_grad()
def auxiliary_statistics(module: Any, rank: int = 0, world_size: int = 1) -> CalibrationStatistics:
    """Scores of auxiliary images, as predictions have them.

    Args:
        module: `DPCLIP`, which has learned from some.
        rank: Number of this process, which scores its share.
        world_size: Number of processes.
    """
    scorer = module.text_scorer(Region())
    statistics = CalibrationStatistics("the auxiliary set, which the adapters learn from").to(module.device)
    images = module.auxiliary_dataset.plain(module.image_size)
    count = min(len(images), max(CALIBRATION_IMAGES // (2 * module.configuration.tiles - 1) ** 2, 2))
    chosen = np.unique(np.linspace(0, len(images) - 1, count).round().astype(int))[rank::world_size]
    was_training = module.training
    module.eval()
    loader = DataLoader(Subset(images, chosen.tolist()), BATCH, collate_fn=NamedImageBatch.collate)
    for batch in loader:
        image = batch.image.to(module.device)
        if module.pre_processor is not None:
            image = module.pre_processor.transform(image)
        anchors = module.target.anchors_of(batch, module.device, follow_images=True)
        raw = scorer.score(image, anchors)
        known = None if batch.has_mask is None else batch.has_mask.to(module.device)
        statistics.update(
            raw.anomaly_map, raw.pred_score, batch.gt_label.to(module.device), batch.gt_mask.to(module.device), known
        )
    module.train(was_training)
    return statistics
