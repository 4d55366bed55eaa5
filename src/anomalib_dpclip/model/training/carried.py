"""What adapters carry beside their weights, learned from plain auxiliary images: thresholds, and how much the text counts."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader, Subset

from anomalib_dpclip.data.items import NamedImageBatch
from anomalib_dpclip.model.good_images import comparison_of, preparation
from anomalib_dpclip.post_processing.calibration_statistics import CalibrationStatistics
from anomalib_dpclip.post_processing.scale import DETECTION_WEIGHT
from anomalib_dpclip.scorers.comparison import Evidence
from anomalib_dpclip.scorers.memory_fit import MEMORY_TOKENS, MemoryFit
from anomalib_dpclip.scorers.region import Region
from anomalib_dpclip.scorers.text_weight import OWN_TOKENS, Episode, best_weight

CALIBRATION_IMAGES, BATCH = 200, 8
"""Most auxiliary images that thresholds are set from, and how many are scored at once."""

GOOD_IMAGES, CLASSES, SCORED = (1, 4), 6, 4
"""Numbers of good images that weights of the text are learned for, by episodes of so many classes at most: each scores so many
normal images, and as many anomalous ones."""


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
        stops = trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step or trainer.max_epochs in {None, -1}
        planned = epochs if stops else max(epochs, trainer.max_epochs)
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
            calibration.set_from(statistics, DETECTION_WEIGHT[domain])
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


def learn_text_weights(module: Any, images: Any) -> dict[str, float]:
    """Weight of the text by the number of good images, of plain auxiliary ones; nothing where these are too few, or tiled."""
    if module.configuration.tiles > 1:
        return {}
    comparison, normalize = comparison_of(module, Region()), preparation(module).normalize
    episodes: dict[int, list[Episode]] = {count: [] for count in GOOD_IMAGES}
    for good, scored in _batches(images, module.seed):
        anchors = module.target.anchors_of(good, module.device, follow_images=True)
        anchors = anchors[0] if anchors.ndim == 3 else anchors
        fit = MemoryFit(comparison, normalize, anchors, limit=MEMORY_TOKENS, seed=module.seed)
        known = (torch.as_tensor(good.image) * 255).round().byte()
        tokens, margin, score = comparison.encode(normalize(scored.image.to(module.device)), anchors)  # whatever is known
        mask, label = scored.gt_mask.to(module.device), scored.gt_label.to(module.device)
        for count, found in episodes.items():
            state = fit.fit(known[:count], text_weight=0.0).state
            evidence = Evidence(margin, score, comparison.combined(state.memory(tokens)))
            found.append(Episode(evidence, state.fusion, mask, label))
    return {str(count): best_weight(comparison, found) for count, found in episodes.items() if found}


def _batches(images: Any, seed: int) -> Iterator[tuple[Any, Any]]:
    """Good images and labelled images of each class that has enough of them."""
    groups = images.samples.reset_index().groupby(["data_set", "class_name"]).groups
    for rows in list(groups.values())[:CLASSES]:
        order = np.random.RandomState(seed).permutation(rows)
        label = images.samples.label_index.to_numpy()[order]
        masked = images.samples.mask_path.notna().to_numpy()[order]
        normal, anomalous = order[label == 0], order[(label == 1) & masked]
        good, scored = normal[: max(GOOD_IMAGES)], [*normal[max(GOOD_IMAGES) :][:SCORED], *anomalous[:SCORED]]
        if len(good) == max(GOOD_IMAGES) and len(anomalous) > 0 and len(normal) > len(good):
            yield tuple(NamedImageBatch.collate([images[int(row)] for row in each]) for each in (good, scored))  # type: ignore[misc]
