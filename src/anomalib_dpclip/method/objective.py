"""The training objective of DP-CLIP: ``L = L_cls + sum over taps (L_seg) + 0.1 sum over taps (L_dec)``."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from anomalib_dpclip.method.anomaly_map import TEMPERATURE, segmentation_logits
from anomalib_dpclip.method.losses import classification_loss, segmentation_loss
from anomalib_dpclip.method.prototypes import Prototypes, TokenDirections
from anomalib_dpclip.method.torch_model import DPCLIPModel


class Objective(NamedTuple):
    """Losses of a batch, the decoupling loss not weighted, and the directions that the prototypes move towards."""

    total: Tensor
    classification: Tensor
    segmentation: Tensor
    decoupling: Tensor
    directions: TokenDirections


def training_objective(
    model: DPCLIPModel,
    prototypes: Prototypes,
    images: Tensor,
    mask: Tensor,
    label: Tensor,
    anchors: Tensor,
    known: Tensor | None = None,
    decoupling_weight: float = 0.1,
    temperature: float = TEMPERATURE,
) -> Objective:
    """Losses of a batch of labelled images; the first one with both kinds of tokens sets the prototypes.

    Args:
        model: The model.
        prototypes: Global prototypes.
        images: Normalised images ``(B, 3, H, W)``.
        mask: Ground truth ``(B, H, W)``, true where abnormal.
        label: 0 (normal) or 1 (anomalous) ``(B,)``.
        anchors: Text anchors of each image's class ``(B, E, 2)``.
        known: Whose masks are known ``(B,)``; the others train the classification loss only. Default: all.
        decoupling_weight: Weight of ``L_dec``.
        temperature: Factor on the similarities inside ``L_seg``.
    """
    taps, detection = model.features(images)
    token_mask = tokens_of(mask, model.backbone.grid)
    if known is not None:
        token_mask = token_mask.masked_fill(~known[:, None], torch.nan)
    classification = classification_loss(detection, anchors, label)
    grid, size = model.backbone.grid, model.backbone.image_size
    logits = [segmentation_logits(tokens, anchors, grid, size, temperature) for tokens in taps]
    masked = slice(None) if known is None else known
    segmentation = torch.stack([segmentation_loss(tap[masked], mask[masked]) for tap in logits]).sum()
    decoupling, directions = prototypes.decoupling_loss(taps, token_mask)
    total = classification + segmentation + decoupling_weight * decoupling
    return Objective(total, classification, segmentation, decoupling, directions)


def tokens_of(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mask ``(B, H, W)`` on the token grid, ``(B, L)`` of 0 and 1, nearest pixel; a defect between those pixels vanishes."""
    return functional.interpolate(mask[:, None].float(), grid, mode="nearest").flatten(1)
