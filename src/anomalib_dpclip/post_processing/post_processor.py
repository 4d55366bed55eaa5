"""Post-processing of DP-CLIP: fused image scores, normalised maps, labels and masks, calibrated on validation images."""

from typing import Any

import torch
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.post_processing import PostProcessor
from lightning import LightningModule, Trainer
from torch import Tensor

from anomalib_dpclip.data_sets.class_names import target_name
from anomalib_dpclip.post_processing.calibration import Calibration
from anomalib_dpclip.post_processing.calibration_statistics import CalibrationStatistics
from anomalib_dpclip.post_processing.scale import Scale, piecewise_linear

_CHOSEN = ("enable_normalization", "enable_thresholding", "image_sensitivity", "pixel_sensitivity", "false_alarm_rate")
"""Arguments that a checkpoint gives where the user does not."""


class DPCLIPPostProcessor(PostProcessor):
    """Turns raw maps and detection scores into scores, labels and masks a person can use.

    An argument that is left out is, with a checkpoint, the checkpoint's. One that is given, or assigned to the attribute, comes
    before it.

    Args:
        enable_normalization: Whether to normalise maps to [0, 1] with the threshold at 0.5, as image scores always are;
            otherwise maps stay raw. Default: true.
        enable_thresholding: Whether to give labels and masks. Default: true.
        image_sensitivity: Share in [0, 1]: the higher, the more images are called anomalous. At 0.5, the default, it is those
            above the threshold.
        pixel_sensitivity: The same for pixels.
        false_alarm_rate: Probability in [0, 1) with which a new normal image of the same source may be called anomalous: sets
            thresholds from normal validation images alone, by a conformal bound, for which a rate of r takes 1 / r - 1 images;
            0 for thresholds that none of them exceeds. Default: thresholds of the best F1 score.

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
        enable_normalization: bool | None = None,
        enable_thresholding: bool | None = None,
        image_sensitivity: float | None = None,
        pixel_sensitivity: float | None = None,
        false_alarm_rate: float | None = None,
    ) -> None:
        if false_alarm_rate is not None and not 0 <= false_alarm_rate < 1:
            raise ValueError(f"false_alarm_rate must lie in [0, 1), not {false_alarm_rate}")
        for name, value in (("image_sensitivity", image_sensitivity), ("pixel_sensitivity", pixel_sensitivity)):
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must lie in [0, 1], not {value}")
        super().__init__()
        self.false_alarm_rate: float | None = None
        given = (enable_normalization, enable_thresholding, image_sensitivity, pixel_sensitivity, false_alarm_rate)
        self._not_chosen: dict[str, Any] = {}
        for name, value in zip(_CHOSEN, given, strict=True):
            if value is None:
                self._not_chosen[name] = getattr(self, name)
            else:
                setattr(self, name, value)
        self.calibration = Calibration()
        self.auxiliary_calibration = Calibration()
        self.auxiliary_calibration.belongs_to("text", is_default=True)
        self._statistics: CalibrationStatistics | None = None

    def checkpoint_config(self) -> dict[str, Any]:
        """Arguments as they are now, as plain data."""
        return {name: getattr(self, name) for name in (*_CHOSEN, "version")}

    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        """Restore what `checkpoint_config` gave, but for what has been chosen since: an argument, or an assigned attribute."""
        if config.get("version", 1) > self.version:
            raise ValueError(
                f"the checkpoint's post-processor has version {config['version']}, this package knows up to "
                f"{self.version}: upgrade anomalib-dpclip"
            )
        for name, value in self._not_chosen.items():
            if name in config and getattr(self, name) == value:
                setattr(self, name, config[name])
                self._not_chosen[name] = config[name]
        self.calibration.false_alarm_rate = config.get("false_alarm_rate")

    def use_auxiliary_calibration(self) -> None:
        """Put the adapters' own calibration in force, that of the images they learned from."""
        self.calibration.copy_from(self.auxiliary_calibration)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start with empty statistics."""
        judged = getattr(getattr(pl_module, "region", None), "scored", None)
        class_name = getattr(getattr(pl_module, "target", None), "class_name", None)
        name = target_name(getattr(trainer, "datamodule", None), class_name)
        self._statistics = CalibrationStatistics(name, judged).to(pl_module.device)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: ImageBatch, *args: Any, **kwargs: Any
    ) -> None:
        """Add a batch of raw predictions to the statistics."""
        del trainer, pl_module, args, kwargs
        if self._statistics is not None:
            _require_finite(outputs, "prediction")
            known = getattr(outputs, "has_mask", None)
            self._statistics.update(outputs.anomaly_map, outputs.pred_score, outputs.gt_label, outputs.gt_mask, known)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Calibrate on the validation images."""
        statistics, self._statistics = self._statistics, None
        if statistics is not None and not trainer.sanity_checking:
            scorer = getattr(pl_module, "scorer", None)  # another model has none
            name = getattr(scorer, "name", "")
            weight = getattr(scorer, "detection_weight", self.calibration.detection_weight.item())
            class_name = getattr(getattr(pl_module, "target", None), "anchor_class", "")
            # Ranges that adapters carry are of scores by the text.
            carried = self.auxiliary_calibration if name == "text" else None
            self.calibration.set_from(statistics, weight, self.false_alarm_rate, carried)
            self.calibration.belongs_to(name, is_default=False, class_name=class_name)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a false-alarm rate that the thresholds in force were not set for."""
        del trainer, pl_module
        if self.false_alarm_rate not in {None, self.calibration.false_alarm_rate}:
            raise ValueError(
                f"false_alarm_rate={self.false_alarm_rate} sets thresholds from normal validation images, and those in force "
                f"were set without it: run `anomalib validate` with it and use the checkpoint that this writes, or leave it out"
            )

    on_predict_epoch_start = on_test_epoch_start

    @property
    def image_threshold(self) -> Tensor:
        """Threshold on the fused image score, ``()``, as anomalib shows that of its own post-processor."""
        return self.calibration.score_knots[2]

    @property
    def pixel_threshold(self) -> Tensor:
        """Threshold on the raw map, ``()``."""
        return self.calibration.map_knots[2]

    def forward(self, predictions: InferenceBatch) -> InferenceBatch:
        """Normalised map, fused score in [0, 1], label ``(B,)`` and mask ``(B, H, W)`` of raw predictions."""
        return self.scaled(predictions, self.calibration.scale)

    def raw_score(self, predictions: InferenceBatch, scale: Scale) -> Tensor:
        """The image score before its normalisation ``(B,)``, on which the image threshold is."""
        return scale.fuse(predictions.anomaly_map.amax(dim=(-2, -1)), predictions.pred_score)

    def scaled(self, predictions: InferenceBatch, scale: Scale) -> InferenceBatch:
        """`forward` with a scale that is given: an exported file holds its own."""
        maps = predictions.anomaly_map
        normalised_map = piecewise_linear(maps.float(), scale.map_knots)
        normalised_score = piecewise_linear(self.raw_score(predictions, scale), scale.score_knots)
        label = mask = None
        if self.enable_thresholding:
            label = normalised_score > 1 - self.image_sensitivity
            mask = normalised_map > 1 - self.pixel_sensitivity
        # The fused score alone may leave [0, 1] on images unlike the validation set, which ranking metrics cannot bear: it is
        # normalised in any case.
        shown = normalised_map if self.enable_normalization else maps
        return InferenceBatch(pred_score=normalised_score, pred_label=label, anomaly_map=shown, pred_mask=mask)

    @torch.no_grad()
    def post_process_batch(self, batch: ImageBatch) -> None:
        """Post-process a batch of predictions in place; one that is not finite is a `FloatingPointError` with its name."""
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
