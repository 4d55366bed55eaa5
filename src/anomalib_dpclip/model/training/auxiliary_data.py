"""Learning from the auxiliary set in the place of the target's training images, and the thresholds that adapters carry."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from anomalib.data import AnomalibDataModule
from lightning.pytorch import Callback, Trainer
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
"""Most auxiliary images that the adapters' thresholds are set from."""

BATCH = 8


class LearnFromAuxiliary(Callback):
    """Has Lightning ask the model for training batches; the user's data module keeps validation and test.

    A data module without validation images is one that Lightning cannot ask for any: it is then not asked.
    """

    def __init__(self) -> None:
        self._replaced: list[str] = []

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Train as the method does, with the model's loaders in the place of the data module's own."""
        if stage == "fit":
            prepare_trainer(trainer)
            follow_global_seed(pl_module)
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

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
        """Move the prototypes, once a batch, after the optimiser's step."""
        del trainer
        pl_module.prototypes.update(TokenDirections(*outputs["directions"]))

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Remember that there is something to test that no earlier checkpoint holds."""
        del trainer
        pl_module.is_trained_here = True


class AuxiliaryCalibration(Callback):
    """Learns, at the end of a training, what adapters carry beside their weights, and counts their epochs.

    A validation of the last adapters takes the ranges of their thresholds, and the checkpoint is written after it.
    """

    def __init__(self) -> None:
        self._calibrated = self._validated = -1

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Before the target is calibrated on, and a checkpoint perhaps written."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._validated = trainer.global_step
            self._calibrate_at_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Where no validation has seen these adapters, their own thresholds are those in force."""
        processor = pl_module.post_processor
        is_end = self._calibrate_at_end(trainer, pl_module)
        if is_end and self._validated != trainer.global_step and hasattr(processor, "use_auxiliary_calibration"):
            processor.use_auxiliary_calibration()

    def _calibrate_at_end(self, trainer: Trainer, module: Any) -> bool:
        """Whether these are the last adapters."""
        epochs = module.current_epoch + int(trainer.fit_loop.epoch_loop.batch_progress.is_last_batch)
        planned = planned_epochs(trainer, epochs)
        known = replace(module.provenance, epochs=epochs, max_epochs=planned)
        processor, is_end = module.post_processor, epochs == planned
        is_new = is_end and self._calibrated != trainer.global_step
        if is_new and hasattr(processor, "auxiliary_calibration") and module.auxiliary_dataset is not None:
            self._calibrated = trainer.global_step
            was_training = module.training
            module.eval()
            with torch.no_grad(), trainer.precision_plugin.forward_context():
                images = module.auxiliary_dataset.plain(module.image_size)
                statistics = auxiliary_statistics(module, images, trainer.global_rank, trainer.world_size)
                # All processes learn the same weights: some seventy images, and once.
                weights = {module.configuration.memory_backbone or OWN_TOKENS: learn_text_weights(module, images)}
            module.train(was_training)
            calibration, domain = processor.auxiliary_calibration, module.model.domain
            calibration.set_from(statistics, domain)
            basis = calibration.threshold_basis
            known = replace(known, calibration_domain=domain, calibration_basis=basis, text_weights=weights)
        module.provenance = known
        return is_end


def auxiliary_statistics(module: Any, images: Any, rank: int = 0, world_size: int = 1) -> CalibrationStatistics:
    """Scores of plain auxiliary images, as predictions have them; each process scores its share."""
    scorer = module.text_scorer(Region())
    statistics = CalibrationStatistics("the auxiliary set, which the adapters learn from").to(module.device)
    count = min(len(images), max(CALIBRATION_IMAGES // (2 * module.configuration.tiles - 1) ** 2, 2))
    chosen = np.unique(np.linspace(0, len(images) - 1, count).round().astype(int))[rank::world_size]
    for batch in DataLoader(Subset(images, chosen.tolist()), BATCH, collate_fn=NamedImageBatch.collate):
        image = batch.image.to(module.device)
        if module.pre_processor is not None:
            image = module.pre_processor.transform(image)
        raw = scorer.score(image, module.target.anchors_of(batch, module.device, follow_images=True))
        known = None if batch.has_mask is None else batch.has_mask.to(module.device)
        label, mask = batch.gt_label.to(module.device), batch.gt_mask.to(module.device)
        statistics.update(raw.anomaly_map, raw.pred_score, label, mask, known)
    return statistics
