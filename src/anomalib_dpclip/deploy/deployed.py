"""What an exported file computes: images to scores, labels and maps, of one class or of several."""

from typing import Any, NamedTuple

from torch import Tensor, nn

from anomalib_dpclip.post_processing.post_processor import DPCLIPPostProcessor
from anomalib_dpclip.post_processing.scale import unpacked


class DeployedOutputs(NamedTuple):
    """What a file gives: as anomalib's `InferenceBatch`, and the raw image score."""

    pred_score: Tensor | None
    pred_label: Tensor | None
    anomaly_map: Tensor | None
    pred_mask: Tensor | None
    raw_score: Tensor


class Deployed(nn.Module):
    """A model as it is exported: text anchors ``(C, E, 2)`` and scales are tables with a row a class.

    `networks` are the modules that the scorer computes with, so that they are exported.
    """

    anchors: Tensor

    def __init__(
        self, pre_processor: nn.Module | None, scorer: Any, networks: list[nn.Module], post_processor: Any, anchors: Tensor
    ) -> None:
        super().__init__()
        self.pre_processor, self.scorer, self.post_processor = pre_processor, scorer, post_processor
        self.networks = nn.ModuleList(networks)
        self.register_buffer("anchors", anchors)

    def forward(self, images: Tensor, scales: Tensor, chosen: Tensor | None = None) -> DeployedOutputs:
        """Score images ``(B, 3, H, W)`` in [0, 1].

        Args:
            images: The images.
            scales: A packed `Scale` of each class ``(C, 14)``.
            chosen: Number of the class that the images show ``(1,)``; without it there is one class.
        """
        anchors, packed = (
            table[0] if chosen is None else table.index_select(0, chosen).squeeze(0) for table in (self.anchors, scales)
        )
        images = images if self.pre_processor is None else self.pre_processor(images)
        raw = self.scorer.score(images, anchors)
        scale = unpacked(packed)
        result = self.post_processor.scaled(raw, scale)
        raw_score = self.post_processor.raw_score(raw, scale)
        return DeployedOutputs(result.pred_score, result.pred_label, result.anomaly_map, result.pred_mask, raw_score)


def output_names(post_processor: DPCLIPPostProcessor) -> list[str]:
    """What a file gives of a post-processor's predictions: without thresholding there are no labels and masks."""
    labels = {"pred_label", "pred_mask"}
    return [name for name in DeployedOutputs._fields if post_processor.enable_thresholding or name not in labels]
