"""Image metrics for anomalib's `Evaluator`, undefined where one kind of image is missing."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from anomalib.data import Batch
from anomalib.metrics import AnomalibMetric
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from anomalib_dpclip.metrics.functional import f1_curve
from anomalib_dpclip.metrics.unit_interval import check_unit_interval


class ImageMetric(AnomalibMetric, Metric):
    """One metric of all images' scores and labels.

    With normal images only, or anomalous ones only, it is NaN: torchmetrics would answer 0 or 1 there, which reads
    like a measurement. Batches without scores or labels are passed over.

    Args:
        name: What to log it as, e.g. ``"image_AUROC"``.
        function: From scores ``(N,)`` float and labels ``(N,)`` int to the metric; a module's function, so that a model
            that holds the metric can be pickled.
    """

    full_state_update = False

    scores: list[torch.Tensor]
    labels: list[torch.Tensor]

    def __init__(self, name: str, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__(fields=("pred_score", "gt_label"))
        self.name = name
        self.function = function
        self.add_state("scores", [], dist_reduce_fx="cat", persistent=False)
        self.add_state("labels", [], dist_reduce_fx="cat", persistent=False)

    def update(self, batch: Batch) -> None:
        """Add a batch with ``pred_score`` in [0, 1] and ``gt_label``, both ``(B,)``.

        Raises:
            ValueError: A score leaves [0, 1].
        """
        if batch.pred_score is not None and batch.gt_label is not None:
            check_unit_interval(batch.pred_score, "image scores")
            self.scores.append(batch.pred_score.detach().float().flatten())
            self.labels.append(batch.gt_label.int().flatten())

    def compute(self) -> torch.Tensor:
        """The metric, in [0, 1] or NaN, ``()``."""
        # Lists, or tensors where the processes' states have been brought together.
        labels = dim_zero_cat(self.labels) if len(self.labels) else torch.empty(0)
        if len(labels.unique()) < 2:
            return torch.tensor(math.nan, device=self.device)
        return self.function(dim_zero_cat(self.scores), labels)


def image_f1_max(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Highest F1 score that any threshold gives, ``()``."""
    counts = count_scores(scores, labels)
    return f1_curve(counts.normal, counts.anomalous).max().to(scores.dtype)


class ScoreCounts(NamedTuple):
    """How many images have each score, in ascending order.

    Attributes:
        scores: The different scores ``(N,)``.
        normal: Normal images with each ``(N,)`` int64.
        anomalous: Anomalous images with each ``(N,)`` int64.
    """

    scores: torch.Tensor
    normal: torch.Tensor
    anomalous: torch.Tensor


def count_scores(scores: torch.Tensor, labels: torch.Tensor) -> ScoreCounts:
    """Count image scores: equal ones cannot be told apart by any threshold.

    Args:
        scores: Image scores ``(B,)``.
        labels: 0 or 1 ``(B,)``.
    """
    different, place = scores.unique(return_inverse=True)
    counts = torch.stack([torch.bincount(place[labels == kind], minlength=len(different)) for kind in (0, 1)])
    return ScoreCounts(different, *counts)
