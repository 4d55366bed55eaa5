"""DP-CLIP as a plain torch module: the frozen tower with what learns, and from images to raw anomaly maps and scores.

F, F', blocks, projectors and V_image of the paper; the maths is in what this imports.
"""

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, NamedTuple, get_args

import torch
from anomalib.data import InferenceBatch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from anomalib_dpclip.clip.towers import tower_of
from anomalib_dpclip.clip.weights import fingerprint
from anomalib_dpclip.data_sets.domain import Domain
from anomalib_dpclip.files.seeded import seeded
from anomalib_dpclip.method.adapters import ChannelPurification, LayerAdapter, Pooling, Projector
from anomalib_dpclip.method.anomaly_map import (
    BLUR,
    Detection,
    anomaly_map,
    blur_grid,
    class_token_score,
    detection_score,
    resize_map,
    tap_average,
)


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


class DPCLIPModel(nn.Module):
    """The paper's model: a frozen CLIP vision tower with layer adapters, a segmentation projector a tap, and a detection one.

    Images are normalised ``(B, 3, H, W)`` of the backbone's size; another size is a ValueError. Anchors are ``(E, 2)``, columns
    normal and abnormal, or ``(B, E, 2)`` where each image has its own class.

    Args:
        clip: An open_clip model with a vision transformer, open_clip's own or timm's. Only its vision tower becomes part of
            this module.
        domain: ``"industrial"`` or ``"medical"``: which blur the anomaly map gets.
        adapter_layers: Layers (0-based) followed by an adapter. Default: the first quarter.
        tap_layers: Layers (1-based) after which tokens are tapped. Default: the quarter points of the depth.
        adapter_weight: Share of the adapted tokens after an adapted layer.
        projector_activation: Whether the projectors end in a LeakyReLU.
        grn_pooling: What the GRN of the layer adapters pools over: ``"tokens"``, ``"batch"`` (as published) or ``"none"``
            (no GRN anywhere).
        detection: What the image score knows beside the map: ``"projector"`` (as published) or ``"class_token"``.

    Attributes:
        anchors: Text anchors ``(E, 2)`` of the current class (buffer).
        checkpointing: Whether layers are computed again in the backward pass instead of remembered.
        backbone_fingerprint: Identifies the CLIP's weights and activation.

    Raises:
        ValueError: For layers outside the tower, a weight out of range, an unknown pooling, detection or domain, or an image
            too small for the blur.
    """

    adapter_prefixes = ("layer_adapters.", "seg_proj.", "det_proj.")
    """Beginnings of the names of everything that is learned."""

    anchors: Tensor

    def __init__(
        self,
        clip: Any,
        *,
        domain: Domain = "industrial",
        adapter_layers: Sequence[int] | None = None,
        tap_layers: Sequence[int] | None = None,
        adapter_weight: float = 0.1,
        projector_activation: bool = False,
        grn_pooling: Pooling = "tokens",
        detection: Detection = "projector",
    ) -> None:
        super().__init__()
        self.backbone = tower_of(clip.visual)
        self.backbone_fingerprint = fingerprint(clip)
        self.domain = domain
        depth, width, embed_dim = self.backbone.depth, self.backbone.width, self.backbone.embed_dim
        self.adapter_layers = tuple(range(math.ceil(depth / 4)) if adapter_layers is None else adapter_layers)
        quarters = [math.ceil(depth * number / 4) for number in (1, 2, 3, 4)]
        self.tap_layers = tuple(quarters if tap_layers is None else tap_layers)
        self._check_layers()
        if not 0 <= adapter_weight <= 1:
            raise ValueError(f"adapter_weight must lie in [0, 1], not {adapter_weight}")
        if detection not in get_args(Detection):
            raise ValueError(f"detection must be one of {', '.join(get_args(Detection))}, not {detection!r}")
        self.adapter_weight, self.projector_activation = adapter_weight, projector_activation
        self.grn_pooling, self.detection = grn_pooling, detection
        self.checkpointing = False

        # The attribute names are those of the published checkpoints.
        self.layer_adapters = nn.ModuleList(
            LayerAdapter(width, weight=adapter_weight, pooling=grn_pooling) for _ in self.adapter_layers
        )
        options = {"activation": projector_activation, "use_grn": grn_pooling != "none"}
        self.seg_proj = nn.ModuleList(Projector(width, embed_dim, **options) for _ in self.tap_layers)
        self.det_proj = Projector(width, embed_dim, **options)
        self.register_buffer("anchors", torch.zeros(embed_dim, 2))

    def _check_layers(self) -> None:
        depth = self.backbone.depth
        for name, layers, first, last in (
            ("adapter_layers", self.adapter_layers, 0, depth - 1),
            ("tap_layers", self.tap_layers, 1, depth),
        ):
            wrong = [layer for layer in layers if not first <= layer <= last]
            if wrong or list(layers) != sorted(set(layers)):
                raise ValueError(
                    f"{name}={list(layers)} must be ascending and within {first}..{last}, the backbone has {depth} layers"
                )
        if not self.tap_layers:
            raise ValueError("tap_layers must name at least one layer")
        if self.adapter_layers and self.adapter_layers[-1] >= self.tap_layers[-1]:
            raise ValueError(
                f"adapter_layers={list(self.adapter_layers)} go beyond the last tap, after layer {self.tap_layers[-1]}: such "
                f"adapters would change nothing"
            )

    @property
    def domain(self) -> Domain:
        """Domain whose blur is applied to anomaly maps."""
        return self._domain

    @domain.setter
    def domain(self, domain: Domain) -> None:
        self._check_domain(domain)
        self._domain = domain

    def _check_domain(self, domain: Domain) -> None:
        if domain not in get_args(Domain):
            raise ValueError(f"domain must be one of {', '.join(get_args(Domain))}, not {domain!r}")
        radius = BLUR[domain][0] // 2
        if min(self.backbone.grid) <= radius:
            side = (radius + 1) * self.backbone.patch_size
            raise ValueError(f"image_size must be at least {side} for the {domain} blur on {self.backbone.grid} tokens")

    def initial_adapters(self, seed: int) -> dict[str, Tensor]:
        """Tensors of adapters and projectors by their names, as the constructor has them after ``torch.manual_seed(seed)``."""
        names = [prefix.removesuffix(".") for prefix in self.adapter_prefixes]
        adapters = nn.ModuleDict({name: deepcopy(getattr(self, name)) for name in names})
        with seeded(seed):
            for module in adapters.modules():
                if isinstance(module, ChannelPurification):
                    module.reset_parameters()
        return adapters.state_dict()

    def tap_tokens(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Patch tokens at the taps ``(B, L, C)``, normed, and all tokens ``(B, P + L, C)`` after the last tapped layer."""
        require_size(images, self.backbone.image_size, "image_size")
        tokens = self.backbone.embed(images)
        taps: list[Tensor] = []
        for index in range(self.tap_layers[-1]):
            if self.checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(self._adapted_layer, index, tokens, use_reentrant=False)
            else:
                tokens = self._adapted_layer(index, tokens)
            if index + 1 in self.tap_layers:
                taps.append(self.backbone.final_norm(tokens[:, self.backbone.prefix_tokens :]))
        return taps, tokens

    def _adapted_layer(self, index: int, tokens: Tensor) -> Tensor:
        """One transformer layer (0-based), and its adapter where it has one."""
        output = self.backbone.layer(index, tokens)
        if index not in self.adapter_layers:
            return output
        return self.layer_adapters[self.adapter_layers.index(index)](output)

    def _projected(self, taps: list[Tensor]) -> list[Tensor]:
        return [project(tap) for project, tap in zip(self.seg_proj, taps, strict=True)]

    def features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Unit tokens ``(B, L, E)``, one tensor a tap, and detection features ``(B, E)``, of length at most 1."""
        taps, _ = self.tap_tokens(images)
        return self._projected(taps), self.det_proj(taps[-1]).mean(dim=1)

    def encode(self, images: Tensor, anchors: Tensor) -> tuple[list[Tensor], Tensor, list[Tensor]]:
        """Unit tokens as of `features`, image scores ``(B,)`` in [0, 1], and tokens ``(B, L, C)`` of each tap unprojected."""
        taps, tokens = self.tap_tokens(images)
        if self.detection == "projector":
            return self._projected(taps), detection_score(self.det_proj(taps[-1]).mean(dim=1), anchors), taps
        for index in range(self.tap_layers[-1], self.backbone.depth):
            tokens = self.backbone.layer(index, tokens)
        image = functional.normalize(self.backbone.image_feature(tokens), dim=-1)
        return self._projected(taps), class_token_score(image, anchors), taps

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


def require_size(images: Tensor, size: tuple[int, int], arguments: str) -> None:
    """Refuse images ``(B, 3, H, W)`` of another height and width than follow from these arguments of `DPCLIP`."""
    if tuple(images.shape[-2:]) != size:
        raise ValueError(f"images are {tuple(images.shape[-2:])}, the model takes {size}: resize them, or set {arguments}")
