"""False alarms and misses of an inspection line: what one costs where the other is limited.

The threshold is the one that serves the images tested best, as in F1-max: these rates say what scores could do, not what a
threshold that was set beforehand will do.
"""

from functools import partial

import torch
from anomalib.metrics import AnomalibMetric
from torchmetrics.functional.classification import binary_sensitivity_at_specificity, binary_specificity_at_sensitivity

from anomalib_dpclip.metrics.image_metrics import ImageMetric

LIMITS = (0.02, 0.05, 0.10)
"""Rates at which the other rate is given."""

TOLERANCE = 1e-6
"""Of rates as float32: 29 of 100 images are a rate of 0.29."""


def fpr_at_fnr(scores: torch.Tensor, labels: torch.Tensor, fnr: float) -> torch.Tensor:
    """Lowest false-positive rate at which at most a share ``fnr`` of the anomalous images is missed.

    Args:
        scores: Image scores ``(N,)`` in [0, 1].
        labels: 0 or 1 ``(N,)``, both at least once.
        fnr: Limit in [0, 1).

    Returns:
        Rate in [0, 1], ``()``.

    Example:
        >>> fpr_at_fnr(torch.tensor([0.1, 0.6, 0.4, 0.9]), torch.tensor([0, 0, 1, 1]), 0.02)
        tensor(0.5000)
    """
    specificity, _ = binary_specificity_at_sensitivity(scores, labels, 1 - fnr - TOLERANCE)
    return 1 - specificity


def fnr_at_fpr(scores: torch.Tensor, labels: torch.Tensor, fpr: float) -> torch.Tensor:
    """Lowest false-negative rate at which at most a share ``fpr`` of the normal images is called anomalous.

    Args:
        scores: Image scores ``(N,)`` in [0, 1].
        labels: 0 or 1 ``(N,)``, both at least once.
        fpr: Limit in [0, 1).

    Returns:
        Rate in [0, 1], ``()``.
    """
    sensitivity, _ = binary_sensitivity_at_specificity(scores, labels, 1 - fpr - TOLERANCE)
    return 1 - sensitivity


def operating_point_metrics() -> list[AnomalibMetric]:
    """New metrics for anomalib's `Evaluator`: ``fpr_at_fnr_2`` (percent), ``_5``, ``_10``, and ``fnr_at_fpr`` likewise.

    Each is NaN where one kind of image is missing.
    """
    return [
        *(ImageMetric(f"fpr_at_fnr_{100 * limit:g}", partial(fpr_at_fnr, fnr=limit)) for limit in LIMITS),
        *(ImageMetric(f"fnr_at_fpr_{100 * limit:g}", partial(fnr_at_fpr, fpr=limit)) for limit in LIMITS),
    ]
