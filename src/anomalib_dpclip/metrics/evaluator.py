"""The metrics that the field reports, ready for anomalib's `Evaluator`."""

import math
from collections.abc import Callable
from functools import partial

import torch
from anomalib.data import Batch
from anomalib.metrics import AnomalibMetric
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_sensitivity_at_specificity,
    binary_specificity_at_sensitivity,
)
from torchmetrics.utilities import dim_zero_cat

from anomalib_dpclip.metrics.functional import aupro, auroc, average_precision, count_scores, f1_curve, f1_max
from anomalib_dpclip.metrics.pixel_histogram import PixelCounts, PixelHistogram, check_unit_interval

STRICT_FPR_LIMIT = 0.05
"""Upper false positive rate of the stricter AUPRO (MVTec AD 2)."""

LIMITS = (0.02, 0.05, 0.10)
"""Rates of false alarms or misses at which the other rate is given."""

TOLERANCE = 1e-6
"""Of rates as float32: 29 of 100 images are a rate of 0.29."""


class ImageMetric(AnomalibMetric, Metric):
    """A function of all images' scores ``(N,)`` float and labels ``(N,)`` int, logged under a name.

    With one kind of image only it is NaN: torchmetrics would answer 0 or 1 there, which reads like a measurement. Batches
    without scores or labels are passed over.
    """

    full_state_update = False

    scores: list[Tensor]
    labels: list[Tensor]

    def __init__(self, name: str, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__(fields=("pred_score", "gt_label"))
        self.name = name
        self.function = function
        self.add_state("scores", [], dist_reduce_fx="cat", persistent=False)
        self.add_state("labels", [], dist_reduce_fx="cat", persistent=False)

    def update(self, batch: Batch) -> None:
        """Add a batch with ``pred_score`` and ``gt_label``, both ``(B,)``.

        Raises:
            ValueError: A score leaves [0, 1].
        """
        if batch.pred_score is not None and batch.gt_label is not None:
            check_unit_interval(batch.pred_score, "image scores")
            self.scores.append(batch.pred_score.detach().float().flatten())
            self.labels.append(batch.gt_label.int().flatten())

    def compute(self) -> Tensor:
        """The metric, in [0, 1] or NaN, ``()``."""
        # Lists, or tensors where the processes' states have been brought together.
        labels = dim_zero_cat(self.labels) if len(self.labels) else torch.empty(0)
        if len(labels.unique()) < 2:
            return torch.tensor(math.nan, device=self.device)
        return self.function(dim_zero_cat(self.scores), labels)


class PixelMetric(AnomalibMetric, Metric):
    """A function of the pixel counts of all images that have maps and masks, logged under a name.

    Those that share the histogram of another one (``reads``) have each batch counted once, by whichever is updated first.
    """

    full_state_update = False

    def __init__(self, name: str, function: Callable[[PixelCounts], float], reads: "PixelMetric | None" = None) -> None:
        super().__init__(fields=("anomaly_map", "gt_mask"))
        self.name = name
        self.function = function
        self.histogram: PixelHistogram = PixelHistogram() if reads is None else reads.histogram
        self._reader = self.histogram.add_reader()

    def update(self, batch: Batch) -> None:
        """Add a batch with ``anomaly_map`` and ``gt_mask``, both ``(B, H, W)``; see `PixelHistogram.update`."""
        if self.histogram.note_batch(self._reader):
            self.histogram.update(batch.anomaly_map, batch.gt_mask, getattr(batch, "has_mask", None))

    def compute(self) -> Tensor:
        """The metric, in [0, 1] or NaN, ``()``."""
        # The histogram sums itself over the processes, once for all metrics that read it (it keeps what it computed).
        return torch.tensor(self.function(self.histogram.compute()), device=self.device)

    def reset(self) -> None:
        """Forget all batches."""
        super().reset()
        self.histogram.reset()


def field_metrics() -> list[AnomalibMetric]:
    """New metrics for ``Evaluator(test_metrics=field_metrics())``, of any anomalib model.

    They see post-processed scores, which lie in [0, 1]. Metrics that a data set does not define are NaN.

    Returns:
        ``image_AUROC``, ``image_AP``, ``image_F1Max``, ``pixel_AUROC``, ``pixel_AP``, ``pixel_AUPRO`` (false positive
        rates up to 0.3), ``pixel_F1Max``. The pixel metrics share one histogram; any choice of them works.
    """
    pixel_auroc = PixelMetric("pixel_AUROC", auroc)
    return [
        ImageMetric("image_AUROC", binary_auroc),
        ImageMetric("image_AP", binary_average_precision),
        ImageMetric("image_F1Max", image_f1_max),
        pixel_auroc,
        PixelMetric("pixel_AP", average_precision, reads=pixel_auroc),
        PixelMetric("pixel_AUPRO", aupro, reads=pixel_auroc),
        PixelMetric("pixel_F1Max", f1_max, reads=pixel_auroc),
    ]


def operating_point_metrics() -> list[AnomalibMetric]:
    """New metrics for anomalib's `Evaluator`: ``fpr_at_fnr_2`` (percent), ``_5``, ``_10``, and ``fnr_at_fpr`` likewise."""
    return [
        *(ImageMetric(f"fpr_at_fnr_{100 * limit:g}", partial(fpr_at_fnr, fnr=limit)) for limit in LIMITS),
        *(ImageMetric(f"fnr_at_fpr_{100 * limit:g}", partial(fnr_at_fpr, fpr=limit)) for limit in LIMITS),
    ]


def benchmark_metrics() -> list[AnomalibMetric]:
    """`field_metrics`, ``pixel_AUPRO_5`` (false positive rates up to 0.05), and `operating_point_metrics`."""
    metrics = field_metrics()
    pixel_auroc = next(metric for metric in metrics if isinstance(metric, PixelMetric))
    strict = PixelMetric("pixel_AUPRO_5", partial(aupro, fpr_limit=STRICT_FPR_LIMIT), reads=pixel_auroc)
    return [*metrics, strict, *operating_point_metrics()]


def image_f1_max(scores: Tensor, labels: Tensor) -> Tensor:
    """Highest F1 score that any threshold gives, ``()``."""
    _, normal, anomalous = count_scores(scores, labels)
    return f1_curve(normal, anomalous).max().to(scores.dtype)


def fpr_at_fnr(scores: Tensor, labels: Tensor, fnr: float) -> Tensor:
    """Lowest false-positive rate, ``()``, at which at most a share ``fnr`` of the anomalous images is missed.

    Its threshold serves the images tested best: it says what scores could do, not what one set beforehand will do.

    Example:
        >>> fpr_at_fnr(torch.tensor([0.1, 0.6, 0.4, 0.9]), torch.tensor([0, 0, 1, 1]), 0.02)
        tensor(0.5000)
    """
    return 1 - binary_specificity_at_sensitivity(scores, labels, 1 - fnr - TOLERANCE)[0]


def fnr_at_fpr(scores: Tensor, labels: Tensor, fpr: float) -> Tensor:
    """Lowest false-negative rate, ``()``, at which at most a share ``fpr`` of the normal images is called anomalous."""
    return 1 - binary_sensitivity_at_specificity(scores, labels, 1 - fpr - TOLERANCE)[0]
