"""What a test said of each image, and the metrics that are counted from it: at thresholds in force, and by kind of defect."""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from anomalib.data import ImageBatch
from anomalib.metrics import AnomalibMetric, Evaluator
from lightning import LightningModule, Trainer
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

PIXELS = ("true_pixels", "false_pixels", "missed_pixels")
"""Anomalous pixels found, normal ones called anomalous, and anomalous ones missed, at the pixel threshold."""


class ImageResults(Evaluator):
    """anomalib's evaluator, which also keeps a record of each image tested.

    Attributes:
        records: One dictionary an image tested: ``image`` (path), ``label`` and ``called`` (0 or 1, or ``None``),
            ``score``, and `PIXELS`, or ``None``.
        resolution: Height and width at which maps and masks were compared; ``None`` without masks.
    """

    def __init__(self, val_metrics: Sequence[AnomalibMetric] = (), test_metrics: Sequence[AnomalibMetric] = ()) -> None:
        super().__init__(val_metrics=val_metrics, test_metrics=test_metrics)
        self.records: list[dict[str, Any]] = []
        self.resolution: tuple[int, int] | None = None

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: ImageBatch,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Update the metrics, and keep a batch's records."""
        super().on_test_batch_end(trainer, pl_module, outputs, batch, *args, **kwargs)
        if batch.gt_mask is not None and batch.anomaly_map is not None:
            self.resolution = tuple(batch.gt_mask.shape[-2:])
        number, post_processor = len(batch.image_path), getattr(pl_module, "post_processor", None)
        columns = {
            "image": list(batch.image_path),
            "label": _listed(batch.gt_label, int, number),
            "score": _listed(batch.pred_score, float, number),
            "called": _listed(batch.pred_label if is_set(post_processor, "image_threshold") else None, int, number),
            **dict(zip(PIXELS, _pixels(batch, is_set(post_processor, "pixel_threshold")), strict=True)),
        }
        self.records += [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def is_set(post_processor: Any, name: str) -> bool:
    """Whether a threshold has been set: without one anomalib labels all the same, in the middle of the scores' range."""
    return not math.isnan(getattr(post_processor, name, 0.0))


def _listed(values: torch.Tensor | None, kind: type, number: int) -> list[Any]:
    return [None] * number if values is None else [kind(value) for value in values.flatten().tolist()]


def _pixels(batch: ImageBatch, has_threshold: bool) -> list[list[Any]]:
    """`PIXELS` of each image, one list each."""
    if batch.gt_mask is None or batch.pred_mask is None or not has_threshold:
        return [[None] * len(batch.image_path)] * len(PIXELS)
    truth, called = batch.gt_mask.bool().flatten(1), batch.pred_mask.bool().flatten(1)
    return [pixels.sum(1).tolist() for pixels in (truth & called, ~truth & called, truth & ~called)]


def at_thresholds(images: pd.DataFrame) -> dict[str, float]:
    """Metrics of `ImageResults.records` at the thresholds that were in force, NaN where undefined.

    F1 of images, F1 of all pixels together, and the share of normal images called anomalous.
    """
    known = images.dropna(subset=["label", "called"])
    anomalous, called = known["label"] == 1, known["called"] == 1
    normal = known["called"][~anomalous]
    pixels = images[list(PIXELS)].dropna().sum()
    return {
        "class_F1": _f1((anomalous & called).sum(), (~anomalous & called).sum(), (anomalous & ~called).sum()),
        "seg_F1": _f1(*pixels),
        "false_alarm_rate": float(normal.mean()) if len(normal) else math.nan,
    }


def _f1(true: float, false: float, missed: float) -> float:
    """F1 score; NaN where nothing is anomalous."""
    return float(2 * true / (2 * true + false + missed)) if true + missed else math.nan


def by_defect(images: pd.DataFrame) -> str:
    """AUROC and AP of each kind of ``defect`` against all normal images, in JSON; empty without images of both kinds.

    For instance ``{"crack": {"images": 16, "AUROC": 0.98, "AP": 0.97}}``.
    """
    images = images.dropna(subset=["score", "label"])
    normal = images[images["label"] == 0]
    found = {}
    for defect, anomalous in images[images["label"] == 1].groupby("defect"):
        both = pd.concat([normal, anomalous])
        scores, labels = torch.tensor(both["score"].to_numpy(np.float32)), torch.tensor(both["label"].to_numpy(np.int64))
        if len(normal):
            values = {"AUROC": binary_auroc(scores, labels), "AP": binary_average_precision(scores, labels)}
            found[defect] = {"images": len(anomalous), **{name: round(value.item(), 6) for name, value in values.items()}}
    return json.dumps(found) if found else ""


def undefined(images: pd.DataFrame) -> list[str]:
    """Why metrics are empty, if any are: what the images lack."""
    labels, pixels = set(images["label"].dropna()), images["true_pixels"] + images["missed_pixels"]
    lacking = {"no normal image": 0 not in labels, "no anomalous image": 1 not in labels}
    kinds = [what for what, lacks in lacking.items() if lacks]
    reasons = [f"image metrics are undefined: {' and '.join(kinds)}"] if kinds else []
    if images["called"].isna().all():
        reasons.append("metrics at thresholds are undefined: the model has set none")
    elif pixels.isna().all():
        reasons.append("pixel metrics are undefined: no masks")
    elif not pixels.sum():
        reasons.append("pixel metrics are undefined: no anomalous pixel")
    return reasons
