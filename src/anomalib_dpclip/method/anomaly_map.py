"""From tokens and text anchors to similarity differences, anomaly maps and detection scores.

Tokens are unit vectors ``(B, L, E)``; anchors ``(E, 2)``, columns normal and abnormal, or ``(B, E, 2)`` where each image has
its own class. Published: ``(100 s_A + 1 - 100 s_N) / 2`` of each tap, summed, and ``(V_image . t_A + 1) / 2``; the blur differs
between industrial and medical images.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2.functional import gaussian_blur

from anomalib_dpclip.data_sets.domain import Domain
from anomalib_dpclip.files.precision import full_precision

Detection = Literal["projector", "class_token"]
"""What the image score knows beside the map: the detection projector's feature, as published, or the class token."""


BLUR: dict[Domain, tuple[int, float]] = {"industrial": (7, 1.0), "medical": (9, 1.5)}
"""Kernel size and sigma of the Gaussian blur on the token grid."""

TEMPERATURE = 100.0
"""Factor on the cosine similarities inside the segmentation softmax (CLIP's learned logit scale at its limit)."""


def text_margin(tokens: Tensor, anchors: Tensor) -> Tensor:
    """Cosine to the abnormal minus cosine to the normal anchor, ``s_A - s_N``: ``(B, L)`` in [-2, 2]."""
    # One product with the difference of the anchors, not two and a subtraction.
    direction = anchors[..., 1] - anchors[..., 0]
    with full_precision(tokens):
        return (tokens.float() @ direction.float().unsqueeze(-1)).squeeze(-1)


def segmentation_logits(
    tokens: Tensor, anchors: Tensor, grid: tuple[int, int], image_size: tuple[int, int], temperature: float = TEMPERATURE
) -> Tensor:
    """``100 (s_A - s_N)`` of one tap as ``(B, H, W)``, whose sigmoid is the softmax over the two similarity maps.

    `grid` has the rows and columns of tokens, `image_size` height and width of the result, `temperature` the factor.
    """
    return resize_map(temperature * text_margin(tokens, anchors).unflatten(-1, grid), image_size)


def tap_average(taps: Sequence[Tensor], anchors: Tensor, grid: tuple[int, int]) -> Tensor:
    """`text_margin` on the token grid, averaged over the taps: ``(B, rows, columns)`` in [-2, 2].

    Blur and resize are linear, so the taps are averaged first: the same map, and as many times cheaper as there are taps.
    """
    return torch.stack([text_margin(tokens, anchors) for tokens in taps]).mean(0).unflatten(-1, grid)


def blur_grid(difference: Tensor, domain: Domain) -> Tensor:
    """Gaussian blur of differences ``(B, rows, columns)`` on the token grid, reflected at the border."""
    kernel_size, sigma = BLUR[domain]
    with full_precision(difference):
        return gaussian_blur(difference.unsqueeze(1), [kernel_size] * 2, [sigma] * 2).squeeze(1)


def resize_map(values: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Bilinear resize of maps ``(B, rows, columns)`` to ``(B, H, W)``, corners on corners."""
    return functional.interpolate(values.unsqueeze(1), image_size, mode="bilinear", align_corners=True).squeeze(1)


def anomaly_map(difference: Tensor) -> Tensor:
    """Differences in [-2, 2], averaged over the taps, put on [0, 1]: ``0.5 + difference / 4``.

    The published map is an affine function of this one, ``200 T (map - 0.5) + T / 2`` for ``T`` taps. 0.5 is the point of
    indifference, and no value can leave [0, 1], as anomalib's ranking metrics need.
    """
    # Rounding can pass a bound by one unit in the last place.
    return (0.5 + difference / 4).clamp(0, 1)


def detection_score(detection: Tensor, anchors: Tensor) -> Tensor:
    """``(V_image . t_A + 1) / 2``: ``(B,)`` in [0, 1] of detection features ``(B, E)``, of length at most 1."""
    return (((detection.float() * anchors[..., 1]).sum(-1) + 1) / 2).clamp(0, 1)


def class_token_score(image: Tensor, anchors: Tensor) -> Tensor:
    """CLIP's own zero-shot score ``(B,)`` of unit image features ``(B, E)``, on [0, 1] as a map is; no part of DP-CLIP."""
    return anomaly_map(text_margin(image.unsqueeze(1), anchors).squeeze(1))
