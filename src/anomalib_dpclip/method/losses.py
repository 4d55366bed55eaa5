"""Training losses of DP-CLIP as pure functions: ``L = L_cls + sum over taps (L_focal + L_dice + L_dice)``.

The two-way softmax over (normal, abnormal) similarities is a sigmoid of their difference, so every segmentation loss takes
one difference map ``(B, H, W)`` instead of two channels: half the memory, the same numbers. Masks ``(B, H, W)`` are true where
abnormal. The decoupling loss is in `prototypes`.
"""

import torch
from torch import Tensor
from torch.nn import functional

from anomalib_dpclip.files.precision import full_precision

FOCAL_SMOOTHING = 1e-5
"""The one-hot target is clamped to [1e-5, 1 - 1e-5], and the same is added to the true-class probability."""


def focal_loss(logits: Tensor, mask: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss without class weights, mean over pixels: ``-(1 - p_t)^gamma log p_t``, of logits as `segmentation_loss`."""
    true_class = torch.sigmoid(torch.where(mask, logits, -logits))
    p_t = true_class * (1 - FOCAL_SMOOTHING) + (1 - true_class) * FOCAL_SMOOTHING + FOCAL_SMOOTHING
    return _mean(-((1 - p_t) ** gamma) * p_t.log())


def dice_loss(probability: Tensor, target: Tensor, smooth: float = 1.0) -> Tensor:
    """Dice loss of one class, mean over images: ``1 - (2 sum(p t) + 1) / (sum p + sum t + 1)``, in [0, 1]."""
    p, t = probability.flatten(1), target.flatten(1).to(probability.dtype)
    overlap = (p * t).sum(1)
    return _mean(1 - (2 * overlap + smooth) / (p.sum(1) + t.sum(1) + smooth))


def segmentation_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """``L_seg`` of one tap, of abnormal minus normal similarity times 100: focal loss, and dice loss of either class."""
    return focal_loss(logits, mask) + dice_loss(torch.sigmoid(-logits), ~mask) + dice_loss(torch.sigmoid(logits), mask)


def classification_loss(detection: Tensor, anchors: Tensor, label: Tensor) -> Tensor:
    """``L_cls``: cross-entropy over the raw products of detection features ``(B, E)`` and anchors, without temperature.

    Anchors ``(B, E, 2)`` are of each image's class, columns normal and abnormal; labels ``(B,)`` 0 (normal) or 1 (anomalous).
    """
    with full_precision(detection):
        return functional.cross_entropy(torch.einsum("be,bek->bk", detection.float(), anchors.float()), label.long())


def _mean(values: Tensor) -> Tensor:
    """Mean that is zero of nothing: a batch may hold no image whose mask is known."""
    return values.sum() / max(1, values.numel())
