"""Post-processing of DP-CLIP: fused image scores, normalised maps, labels and masks, calibrated on validation images."""

from typing import Any

import torch
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.post_processing import PostProcessor
from lightning import LightningModule, Trainer
from torch import Tensor

from anomalib_dpclip.method.domain import Domain
from anomalib_dpclip.post_processing.calibration import Calibration
from anomalib_dpclip.post_processing.calibration_statistics import CalibrationStatistics
from anomalib_dpclip.post_processing.scale import Scale


class DPCLIPPostProcessor(PostProcessor):
    """Turns raw maps and detection scores into scores, labels and masks a person can use.

    Args:
        enable_normalization: Normalise maps and scores to [0, 1] with the threshold at 0.5. Without it maps stay raw.
        enable_thresholding: Give labels and masks.
        image_sensitivity: Higher values call more images anomalous, in [0, 1]; 0.5 is the threshold itself.
        pixel_sensitivity: The same for pixels.
        false_alarm_rate: Set thresholds from normal validation images alone, so that a new normal image of the same source is
            called anomalous with at most this probability, in [0, 1): a conformal bound, for which a rate of r takes 1 / r - 1
            images; 0 for thresholds that none of them exceeds. By default thresholds are those of the best F1 score.
        domain: How scores are fused; the model sets it to its own.

    Attributes:
        calibration: Ranges and thresholds in force (of the target).
        auxiliary_calibration: Those of the images that the adapters learned from: what the adapters carry, and the default
            where a target has no validation images.

    Raises:
        ValueError: If ``false_alarm_rate`` or a sensitivity is out of range.
    """

    version = 1
    """Of the saved configuration."""

    def __init__(
        self,
        enable_normalization: bool = True,
        enable_thresholding: bool = True,
        image_sensitivity: float = 0.5,
        pixel_sensitivity: float = 0.5,
        false_alarm_rate: float | None = None,
        domain: Domain = "industrial",
    ) -> None:
        super().__init__(
            enable_normalization=enable_normalization,
            enable_thresholding=enable_thresholding,
            image_sensitivity=image_sensitivity,
            pixel_sensitivity=pixel_sensitivity,
        )
        if false_alarm_rate is not None and not 0 <= false_alarm_rate < 1:
            raise ValueError(f"false_alarm_rate must lie in [0, 1), not {false_alarm_rate}")
        for name, value in (("image_sensitivity", image_sensitivity), ("pixel_sensitivity", pixel_sensitivity)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must lie in [0, 1], not {value}")
        self.false_alarm_rate = false_alarm_rate
        self.domain: Domain = domain
        self.calibration = Calibration()
        self.auxiliary_calibration = Calibration()
        self._statistics: CalibrationStatistics | None = None

    @property
    def _checkpoint_config_keys(self) -> tuple[str, ...]:
        return (*super()._checkpoint_config_keys, "false_alarm_rate", "domain", "version")

    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        """Restore what `checkpoint_config` gave.

        Raises:
            ValueError: If a newer version of this package wrote it.
        """
        if config.get("version", 1) > type(self).version:
            raise ValueError(
                f"the checkpoint's post-processor has version {config['version']}, this package knows up to "
                f"{type(self).version}: upgrade anomalib-dpclip"
            )
        super().load_checkpoint_config({key: value for key, value in config.items() if key != "version"})

    # Calibration

    def use_auxiliary_calibration(self) -> None:
        """Put the adapters' own calibration in force, that of the images they learned from."""
        self.calibration.copy_from(self.auxiliary_calibration)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what an earlier validation saw."""
        del trainer
        ignored = getattr(getattr(pl_module, "model", None), "ignored", None)
        judged = None if ignored is None else ignored.judged
        self._statistics = CalibrationStatistics(getattr(pl_module, "target_name", ""), judged).to(pl_module.device)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: ImageBatch,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Remember a batch of raw predictions."""
        del trainer, pl_module, args, kwargs
        if self._statistics is not None:
            _require_finite(outputs, "prediction")
            known = getattr(outputs, "has_mask", None)
            self._statistics.update(outputs.anomaly_map, outputs.pred_score, outputs.gt_label, outputs.gt_mask, known)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Calibrate on the validation images."""
        del pl_module
        statistics, self._statistics = self._statistics, None
        if statistics is not None and not trainer.sanity_checking:
            self.calibration.set_from(statistics, self.domain, self.false_alarm_rate, self.auxiliary_calibration)

    # What anomalib shows of its own post-processor.

    @property
    def image_threshold(self) -> Tensor:
        """Threshold on the fused image score, ``()``."""
        return self.calibration.score_knots[2]

    @property
    def pixel_threshold(self) -> Tensor:
        """Threshold on the raw map, ``()``."""
        return self.calibration.map_knots[2]

    # Application

    def forward(self, predictions: InferenceBatch) -> InferenceBatch:
        """Post-process raw predictions; the same computation in an exported model.

        Args:
            predictions: Raw ``anomaly_map`` ``(B, H, W)`` and ``pred_score`` ``(B,)``.

        Returns:
            Normalised map and fused score in [0, 1], ``pred_label`` ``(B,)`` and ``pred_mask`` ``(B, H, W)``.
        """
        return self.scaled(predictions, self.calibration.scale)

    def raw_score(self, predictions: InferenceBatch, scale: Scale) -> Tensor:
        """The image score before its normalisation ``(B,)``, on which the image threshold is."""
        return scale.fuse(predictions.anomaly_map.amax(dim=(-2, -1)), predictions.pred_score, self.domain)

    def scaled(self, predictions: InferenceBatch, scale: Scale) -> InferenceBatch:
        """`forward` with a scale that is given: an exported file holds its own."""
        maps = predictions.anomaly_map
        normalised_map, normalised_score = (
            scale.normalize_map(maps),
            scale.normalize_score(self.raw_score(predictions, scale)),
        )
        label = mask = None
        if self.enable_thresholding:
            label = normalised_score > 1 - self.image_sensitivity
            mask = normalised_map > 1 - self.pixel_sensitivity
        return InferenceBatch(
            # The fused score alone may leave [0, 1] on images unlike the validation set, which ranking metrics cannot
            # bear: it is normalised in any case.
            pred_score=normalised_score,
            pred_label=label,
            anomaly_map=normalised_map if self.enable_normalization else maps,
            pred_mask=mask,
        )

    @torch.no_grad()
    def post_process_batch(self, batch: ImageBatch) -> None:
        """Post-process a batch of predictions in place.

        Raises:
            FloatingPointError: If a prediction is not finite; names its image.
        """
        _require_finite(batch, "prediction")
        batch.update(**self(InferenceBatch(anomaly_map=batch.anomaly_map, pred_score=batch.pred_score))._asdict())
        _require_finite(batch, "normalised prediction")


def _require_finite(batch: ImageBatch, what: str) -> None:
    # A comparison with NaN is false: without this such an image would be called normal. A maximum passes NaN on.
    finite = (batch.anomaly_map.amax(dim=(-2, -1)) + batch.pred_score).isfinite()
    if not finite.all():
        index = int((~finite).nonzero()[0])
        image = batch.image_path[index] if batch.image_path else f"image {index} of the batch"
        raise FloatingPointError(
            f"the {what} of {image} is not finite: half precision overflows where --trainer.precision bf16-mixed or "
            f"32-true does not; otherwise the weights are damaged"
        )
