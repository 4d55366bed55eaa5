"""How DPCLIP validates, tests and predicts: raw maps and scores against the target's text anchors."""

import logging
from typing import Any

from anomalib.data import ImageBatch

from anomalib_dpclip.adapter_files.provenance import Provenance
from anomalib_dpclip.auxiliary.leakage import warn_if_learned_from
from anomalib_dpclip.model.lot import JudgesLot
from anomalib_dpclip.model.post_processor import DPCLIPPostProcessor

logger = logging.getLogger(__name__)


class EvaluatesTarget(JudgesLot):
    """Lightning's hooks of `DPCLIP` for validation, test and prediction."""

    provenance: Provenance

    def setup(self, stage: str) -> None:
        """Allow a target without validation images."""
        super().setup(stage)
        target = self.target
        if target is not None and not hasattr(target, "val_data"):
            # Lightning asks the data module first, which would fail. This makes it ask the model, which has none.
            for loop in (self.trainer.validate_loop, self.trainer.fit_loop.epoch_loop.val_loop):
                loop._data_source.instance = self  # noqa: SLF001

    def val_dataloader(self) -> list:
        """None: lets anomalib predict on bare folders, where it would validate a zero-shot model first."""
        return []

    def on_validation_start(self) -> None:
        """Make the target's text anchors and memory."""
        self.follow_target()
        self.follow_references()
        self._validated = bool(sum(self.trainer.num_val_batches))
        self.follow_lot(self.trainer.val_dataloaders, calibrate=False)

    def on_test_start(self) -> None:
        """Make the target's text anchors; warn if the adapters have seen the target, or nothing is calibrated."""
        self.follow_target()
        self.follow_references()
        self.follow_lot(self.trainer.test_dataloaders, calibrate=not self._validated)
        self._validated = False  # another test may be of another target
        if self.target is not None:
            warn_if_learned_from(self.provenance.learned_from, self.target)
        self._warn_if_uncalibrated()

    def on_predict_start(self) -> None:
        """Make the target's text anchors; warn if nothing is calibrated."""
        self.follow_target()
        self.follow_references()
        self.follow_lot(self.trainer.predict_dataloaders, calibrate=True)
        self._validated = False
        self._warn_if_uncalibrated()

    def _warn_if_uncalibrated(self) -> None:
        if isinstance(self.post_processor, DPCLIPPostProcessor) and not self.post_processor.calibration.is_set:
            logger.warning(
                "these adapters carry no calibration and there is no validation split: the threshold is 0.5, the point of "
                "indifference. Run `anomalib validate` on images of the target for a better one"
            )

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> ImageBatch:
        """Raw maps and detection scores, each image against the anchors of its class."""
        del batch_idx
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
