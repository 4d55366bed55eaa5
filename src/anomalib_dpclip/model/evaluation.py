"""How DPCLIP validates, tests and predicts: raw maps and scores against the target's text anchors."""

import logging
from typing import Any

from anomalib.data import ImageBatch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_dpclip.auxiliary.leakage import warn_if_learned_from
from anomalib_dpclip.post_processing.post_processor import DPCLIPPostProcessor
from anomalib_dpclip.references.lot import JudgesLot

logger = logging.getLogger(__name__)


class EvaluatesTarget(JudgesLot):
    """Lightning's hooks of `DPCLIP` for validation, test and prediction."""

    def setup(self, stage: str) -> None:
        """Allow a target without validation images; let a new calibration replace the one that is there."""
        super().setup(stage)
        if self.target is not None and not hasattr(self.target, "val_data"):
            # Lightning asks the data module first, which would fail. This makes it ask the model, which has none.
            for loop in (self.trainer.validate_loop, self.trainer.fit_loop.epoch_loop.val_loop):
                loop._data_source.instance = self  # noqa: SLF001
        if stage == "validate":
            for callback in self.trainer.checkpoint_callbacks:
                if isinstance(callback, ModelCheckpoint):
                    callback._enable_version_counter = False  # noqa: SLF001  (else it writes model-v1.ckpt, and nobody looks)

    def val_dataloader(self) -> list:
        """None: lets anomalib predict on bare folders, where it would validate a zero-shot model first."""
        return []

    def on_validation_start(self) -> None:
        """Make the target's text anchors, and decide in which domain its thresholds are set.

        Raises:
            ValueError: If there are no trained adapters to calibrate.
        """
        if self.trainer.state.fn != TrainerFn.FITTING:
            self._require_adapters()
        self.resolve_class()
        self.resolve_domain(calibrating=True)
        self.follow_ignored()
        self.follow_references()
        self._validated = bool(sum(self.trainer.num_val_batches))
        self.follow_lot(self.trainer.val_dataloaders, calibrate=False)

    def on_test_start(self) -> None:
        """Make the target's text anchors and memory; warn if the adapters have seen the target, or nothing is calibrated.

        Raises:
            ValueError: If there are no trained adapters to test.
        """
        self._start_judging(self.trainer.test_dataloaders, calibrate_lot=not self._validated)
        if self.target is not None:
            warn_if_learned_from(self.provenance.learned_from, self.target)

    def on_predict_start(self) -> None:
        """Make the target's text anchors and memory; warn if nothing is calibrated.

        Raises:
            ValueError: If there are no trained adapters to predict with.
        """
        self._start_judging(self.trainer.predict_dataloaders, calibrate_lot=True)

    def _start_judging(self, loaders: Any, *, calibrate_lot: bool) -> None:
        self._require_adapters()
        self.resolve_class()
        self.resolve_domain(calibrating=False)
        self.follow_ignored()
        self.follow_references()
        self.follow_lot(loaders, calibrate=calibrate_lot)
        self._validated = False  # another run may be of another target
        if isinstance(self.post_processor, DPCLIPPostProcessor) and not self.is_calibrated:
            logger.warning(
                "nothing has been calibrated, neither the adapters nor on this target: the threshold is 0.5, the point of "
                "indifference. Run `anomalib validate` on images of the target for a better one"
            )

    def _require_adapters(self) -> None:
        if self.weights is None and not self.provenance.learned_from:
            raise ValueError(
                "there is nothing to judge with, the adapters are untrained: give trained ones with --model.weights FILE or "
                "--ckpt_path FILE, or say --model.weights clip for CLIP without adapters"
            )

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> ImageBatch:
        """Raw maps and detection scores, each image against the anchors of its class."""
        del batch_idx
        self.require_photo_sizes(batch)
        prediction = self.judge(batch)
        if prediction is None:
            prediction = self.model.predict(batch.image, self.anchors_of(batch))
        return batch.update(**prediction._asdict())

    def test_step(self, batch: ImageBatch, batch_idx: int, *args: Any, **kwargs: Any) -> ImageBatch:
        """As `validation_step`."""
        del args, kwargs
        return self.validation_step(batch, batch_idx)

    def predict_step(self, batch: ImageBatch, batch_idx: int, dataloader_idx: int = 0) -> ImageBatch:
        """As `validation_step`."""
        del dataloader_idx
        return self.validation_step(batch, batch_idx)
