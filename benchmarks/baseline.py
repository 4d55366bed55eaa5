"""A training step that does everything the published implementation does, written for comparison from its description.

Its known costs: the frozen towers collect weight gradients, attention weights are materialised, every tap gets a full
two-channel softmax map, and the focal loss copies its target through the CPU. The losses are those of `losses`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from anomalib_dpclip.method.anomaly_map import TEMPERATURE
from anomalib_dpclip.method.losses import FOCAL_SMOOTHING, classification_loss, dice_loss
from anomalib_dpclip.method.prototypes import Prototypes
from anomalib_dpclip.method.torch_model import DPCLIPModel


def thaw(model: DPCLIPModel) -> None:
    """Let the backbone collect gradients, and its attention give its weights."""
    model.backbone.requires_grad_(True)
    for block in model.backbone.visual.transformer.resblocks:
        block.attn = _MaterialisedAttention(block.attn)


class _MaterialisedAttention(nn.Module):
    """`nn.MultiheadAttention` that returns its weights, which keeps it from the fused kernel."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.attention = attention
        self.batch_first = attention.batch_first

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **_: object) -> tuple[Tensor, Tensor]:
        return self.attention(query, key, value, need_weights=True, average_attn_weights=False)


def focal_loss(probabilities: Tensor, mask: Tensor) -> Tensor:
    """Focal loss over two channels ``(B, 2, H, W)``, its one-hot target made on the CPU."""
    target = torch.zeros(probabilities.shape).scatter_(1, mask[:, None].long().cpu(), 1.0)
    target = target.clamp(FOCAL_SMOOTHING, 1 - FOCAL_SMOOTHING).to(probabilities.device)
    p_t = (target * probabilities).sum(1) + FOCAL_SMOOTHING
    return (-((1 - p_t) ** 2) * p_t.log()).mean()


def loss(model: DPCLIPModel, prototypes: Prototypes, images: Tensor, mask: Tensor, label: Tensor, anchors: Tensor) -> Tensor:
    """Total loss of a batch, as `DPCLIP.training_step` but at the published cost."""
    taps, detection = model.features(images)
    total = classification_loss(detection.float(), anchors, label)
    for tokens in taps:
        similarity = TEMPERATURE * (tokens.float() @ anchors)
        maps = similarity.transpose(1, 2).unflatten(2, model.backbone.grid)
        maps = functional.interpolate(maps, model.backbone.image_size, mode="bilinear", align_corners=True)
        probabilities = maps.softmax(1)
        total = total + focal_loss(probabilities, mask)
        total = total + dice_loss(probabilities[:, 0], ~mask) + dice_loss(probabilities[:, 1], mask)
    token_mask = functional.interpolate(mask[:, None].float(), model.backbone.grid, mode="nearest").flatten(1)
    decoupling, _ = prototypes.decoupling_loss(taps, token_mask)
    return total + 0.1 * decoupling
