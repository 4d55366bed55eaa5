"""DP-CLIP as a plain torch module: from images to raw anomaly maps and detection scores. The maths is in what it imports."""

from typing import Any, NamedTuple, get_args

import torch
from anomalib.data import InferenceBatch
from torch import Tensor

from anomalib_dpclip.data_sets.domain import Domain
from anomalib_dpclip.method.adapted_tower import AdaptedTower
from anomalib_dpclip.method.anomaly_map import BLUR, anomaly_map, blur_grid, resize_map, tap_average


class TextEvidence(NamedTuple):
    """What the text anchors say of images.

    Attributes:
        margin: `tap_average` before the blur ``(B, rows, columns)``, in [-2, 2].
        score: Detection score ``(B,)``, in [0, 1].
        tokens: Tokens of each tap ``(B, L, C)`` before the projectors.
    """

    margin: Tensor
    score: Tensor
    tokens: list[Tensor]


class DPCLIPModel(AdaptedTower):
    """The paper's model: an adapted tower whose tokens are compared with text anchors.

    Images are normalised ``(B, 3, H, W)`` of the backbone's size; another size is a ValueError. Anchors are ``(E, 2)``, columns
    normal and abnormal, or ``(B, E, 2)`` where each image has its own class.

    Args:
        clip: As in `AdaptedTower`.
        domain: ``"industrial"`` or ``"medical"``: which blur the anomaly map gets.
        architecture: The other arguments of `AdaptedTower`.

    Attributes:
        anchors: Text anchors ``(E, 2)`` of the current class (buffer).

    Raises:
        ValueError: As in `AdaptedTower`, for an unknown domain, or for an image too small for the blur.
    """

    anchors: Tensor

    def __init__(self, clip: Any, *, domain: Domain = "industrial", **architecture: Any) -> None:
        super().__init__(clip, **architecture)
        self.domain = domain
        self.register_buffer("anchors", torch.zeros(self.backbone.embed_dim, 2))

    @property
    def domain(self) -> Domain:
        """Domain whose blur is applied to anomaly maps."""
        return self._domain

    @domain.setter
    def domain(self, domain: Domain) -> None:
        if domain not in get_args(Domain):
            raise ValueError(f"domain must be one of {', '.join(get_args(Domain))}, not {domain!r}")
        radius = BLUR[domain].kernel_size // 2
        if min(self.backbone.grid) <= radius:
            side = (radius + 1) * self.backbone.patch_size
            raise ValueError(f"image_size must be at least {side} for the {domain} blur on {self.backbone.grid} tokens")
        self._domain = domain

    def evidence(self, images: Tensor, anchors: Tensor) -> TextEvidence:
        """What the text anchors say of images, before the blur."""
        taps, score, tokens = self.encode(images, anchors)
        return TextEvidence(tap_average(taps, anchors, self.backbone.grid), score, tokens)

    def blur(self, margin: Tensor) -> Tensor:
        """Margins ``(B, rows, columns)`` with the domain's Gaussian blur, on any token grid."""
        return blur_grid(margin, self.domain)

    def predict(self, images: Tensor, anchors: Tensor) -> InferenceBatch:
        """Raw ``anomaly_map`` ``(B, H, W)`` and ``pred_score`` ``(B,)``, both in [0, 1], as published."""
        evidence = self.evidence(images, anchors)
        maps = anomaly_map(resize_map(self.blur(evidence.margin), self.backbone.image_size))
        return InferenceBatch(anomaly_map=maps, pred_score=evidence.score)

    def forward(self, images: Tensor) -> InferenceBatch | tuple[list[Tensor], Tensor]:
        """`predict` against the current class's anchors in evaluation mode, `features` in training mode."""
        return self.features(images) if self.training else self.predict(images, self.anchors)
