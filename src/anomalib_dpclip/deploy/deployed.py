"""What an exported file computes: images to scores, labels and maps, of one class or of several."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from anomalib_dpclip.post_processing.post_processor import DPCLIPPostProcessor
from anomalib_dpclip.post_processing.scale import unpacked

SCALES = "scales"
"""Name of the table of thresholds in a file: an input while it is exported, so that nothing is computed from it beforehand."""

CLASS = "class"
"""Name of the input that chooses one of several classes, by its number from 0."""

RAW_SCORE = "raw_score"
"""Name of the image score before its normalisation."""


class DeployedOutputs(NamedTuple):
    """What a file gives: as anomalib's `InferenceBatch`, and the raw image score."""

    pred_score: Tensor | None
    pred_label: Tensor | None
    anomaly_map: Tensor | None
    pred_mask: Tensor | None
    raw_score: Tensor


class Deployed(nn.Module):
    """A model as it is exported: anchors and scales are tables with a row a class.

    Args:
        model: `DPCLIP` with a `DPCLIPPostProcessor`.
        anchors: Text anchors of each class ``(C, E, 2)``.
    """

    anchors: Tensor

    def __init__(self, model: Any, anchors: Tensor) -> None:
        super().__init__()
        self.pre_processor, self.scorer = model.pre_processor, model.scorer
        # What the scorer computes with, so that it is exported.
        self.parts = nn.ModuleList(filter(None, [model.model, model.feature_tower, model.region, model.scorer_state]))
        self.post_processor: DPCLIPPostProcessor = model.post_processor
        self.register_buffer("anchors", anchors)

    def forward(self, images: Tensor, scales: Tensor, chosen: Tensor | None = None) -> DeployedOutputs:
        """Judge images.

        Args:
            images: ``(B, 3, H, W)`` in [0, 1].
            scales: A packed `Scale` of each class ``(C, 14)``.
            chosen: Number of the class that the images show ``(1,)``; without it there is one class.
        """
        anchors, scale = (
            table[0] if chosen is None else table.index_select(0, chosen).squeeze(0) for table in (self.anchors, scales)
        )
        images = images if self.pre_processor is None else self.pre_processor(images)
        raw = self.scorer.score(images, anchors)
        known = unpacked(scale)
        judged = self.post_processor.scaled(raw, known)
        raw_score = self.post_processor.raw_score(raw, known)
        return DeployedOutputs(judged.pred_score, judged.pred_label, judged.anomaly_map, judged.pred_mask, raw_score)


def output_names(post_processor: DPCLIPPostProcessor) -> list[str]:
    """What a file gives of a post-processor's predictions: without thresholding there are no labels and masks."""
    labels = {"pred_label", "pred_mask"}
    return [name for name in DeployedOutputs._fields if post_processor.enable_thresholding or name not in labels]


def scale_table(scales: list[Tensor]) -> Tensor:
    """Packed scales of classes as one table ``(C, 14)``, on the CPU."""
    return torch.stack([scale.detach().cpu().float() for scale in scales])
