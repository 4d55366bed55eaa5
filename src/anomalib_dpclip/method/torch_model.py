"""DP-CLIP as a plain torch module: wiring from images to tokens, maps and scores. The maths is in the modules it imports.

DP-CLIP (Feature Decoupling and Channel Purification), the whole model: F, F', blocks, projectors and V_image.
"""

import copy
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, get_args

import torch
from anomalib.data import InferenceBatch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from anomalib_dpclip.clip.fingerprint import fingerprint
from anomalib_dpclip.clip.towers import tower_of
from anomalib_dpclip.method.adapters import ChannelPurification, LayerAdapter, Pooling, Projector
from anomalib_dpclip.method.anomaly_map import (
    anomaly_map,
    blur_grid,
    detection_score,
    resize_map,
    tap_average,
)
from anomalib_dpclip.method.corrections import Corrections
from anomalib_dpclip.method.domain import BLUR, Domain
from anomalib_dpclip.method.ignored_region import IgnoredRegion, smooth_judged
from anomalib_dpclip.method.memory import TokenMemory, centred_tokens, fuse, smooth_distance
from anomalib_dpclip.method.tiling import predict_tiled


class DPCLIPModel(nn.Module):
    """A frozen CLIP vision tower with layer adapters, one segmentation projector a tap, and a detection projector.

    Args:
        clip: An open_clip model with a vision transformer, open_clip's own or timm's. Only its vision tower becomes part of
            this module.
        adapter_layers: Layers (0-based) followed by an adapter. Default: the first quarter.
        tap_layers: Layers (1-based) after which tokens are tapped. Default: the quarter points of the depth.
        adapter_weight: Share of the adapted tokens after an adapted layer.
        projector_activation: Whether the projectors end in a LeakyReLU.
        grn_pooling: What the GRN of the layer adapters pools over: ``"tokens"``, ``"batch"`` (as published) or ``"none"``
            (no GRN anywhere).
        domain: ``"industrial"`` or ``"medical"``: which blur the anomaly map gets.
        tiles: `predict` takes images of so many times the backbone's height and width, and sees them tile by tile.

    Attributes:
        anchors: Text anchors ``(E, 2)`` of the current class, columns normal and abnormal (buffer).
        checkpointing: Whether layers are computed again in the backward pass instead of remembered.
        backbone_fingerprint: Identifies the CLIP's weights and activation.
        memory: Patch tokens of photos of the target, where there are any: `predict` then judges by them too.
        ignored: Where nothing is judged, if there is such a place.
        corrections: What a memory is not to call anomalous again, if there is such a thing.

    Raises:
        ValueError: For layers outside the tower, an unknown pooling or domain, or an image too small for the blur.
    """

    anchors: Tensor

    adapter_prefixes = ("layer_adapters.", "seg_proj.", "det_proj.")
    """Beginnings of the names of everything that is learned."""

    def __init__(
        self,
        clip: Any,
        adapter_layers: Sequence[int] | None = None,
        tap_layers: Sequence[int] | None = None,
        adapter_weight: float = 0.1,
        projector_activation: bool = False,
        grn_pooling: Pooling = "tokens",
        domain: Domain = "industrial",
        tiles: int = 1,
    ) -> None:
        super().__init__()
        if tiles < 1:
            raise ValueError(f"tiles must be at least 1, not {tiles}")
        self.tiles = tiles
        self.backbone = tower_of(clip.visual)
        self.backbone_fingerprint = fingerprint(clip)
        depth, width, embed_dim = self.backbone.depth, self.backbone.width, self.backbone.embed_dim
        quarter = math.ceil(depth / 4)
        self.adapter_layers = tuple(range(quarter) if adapter_layers is None else adapter_layers)
        self.tap_layers = tuple(
            [math.ceil(depth * quarters / 4) for quarters in (1, 2, 3, 4)] if tap_layers is None else tap_layers
        )
        self._check_layers(depth)
        if not 0 <= adapter_weight <= 1:
            raise ValueError(f"adapter_weight must lie in [0, 1], not {adapter_weight}")
        self.adapter_weight, self.projector_activation = adapter_weight, projector_activation
        self.grn_pooling = grn_pooling
        self.checkpointing = False
        self.domain = domain

        # The attribute names are those of the published checkpoints.
        self.layer_adapters = nn.ModuleList(
            LayerAdapter(width, weight=adapter_weight, pooling=grn_pooling) for _ in self.adapter_layers
        )
        use_grn = grn_pooling != "none"
        self.seg_proj = nn.ModuleList(
            Projector(width, embed_dim, activation=projector_activation, use_grn=use_grn) for _ in self.tap_layers
        )
        self.det_proj = Projector(width, embed_dim, activation=projector_activation, use_grn=use_grn)
        self.register_buffer("anchors", torch.zeros(embed_dim, 2))
        self.memory: TokenMemory | None = None
        self.ignored: IgnoredRegion | None = None
        self.corrections: Corrections | None = None

    def initial_adapters(self, seed: int) -> dict[str, Tensor]:
        """Adapters and projectors as they are before anything is learned, the same for the same seed.

        Args:
            seed: As the constructor has it with ``torch.manual_seed`` before it.

        Returns:
            Tensors by their names in the state dict; the model itself stays as it is.
        """
        parts = {name.removesuffix("."): copy.deepcopy(getattr(self, name.removesuffix("."))) for name in self.adapter_prefixes}
        adapters = nn.ModuleDict(parts)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in adapters.modules():
                if isinstance(module, ChannelPurification):
                    module.reset_parameters()
        return adapters.state_dict()

    def _check_layers(self, depth: int) -> None:
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
    def input_size(self) -> tuple[int, int]:
        """Height and width of the images that `predict` takes."""
        height, width = self.backbone.image_size
        return self.tiles * height, self.tiles * width

    @property
    def domain(self) -> Domain:
        """Domain whose blur is applied to anomaly maps."""
        return self._domain

    @domain.setter
    def domain(self, domain: Domain) -> None:
        if domain not in get_args(Domain):
            raise ValueError(f"domain must be one of {', '.join(get_args(Domain))}, not {domain!r}")
        reach = BLUR[domain].kernel_size // 2
        if min(self.backbone.grid) <= reach:
            side = (reach + 1) * self.backbone.patch_size
            raise ValueError(f"image_size must be at least {side} for the {domain} blur on {self.backbone.grid} tokens")
        self._domain = domain

    def features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Tap tokens and detection feature.

        Args:
            images: Normalised images ``(B, 3, H, W)`` of the backbone's size.

        Returns:
            Unit tokens ``(B, L, E)``, one tensor a tap, and the detection features ``(B, E)``, of length at most 1.

        Raises:
            ValueError: If the images have another size than the backbone.
        """
        taps, detection, _ = self.features_and_taps(images)
        return taps, detection

    def features_and_taps(self, images: Tensor) -> tuple[list[Tensor], Tensor, list[Tensor]]:
        """`features`, and the taps' tokens ``(B, L, C)`` before the projectors, which a memory is made of."""
        taps = self._taps(images)
        detection = self.det_proj(taps[-1]).mean(dim=1)
        return [project(tap) for project, tap in zip(self.seg_proj, taps, strict=True)], detection, taps

    def _taps(self, images: Tensor) -> list[Tensor]:
        _require_size(images, self.backbone.image_size, "image_size")
        tokens = self.backbone.embed(images)
        taps: list[Tensor] = []
        for index in range(self.tap_layers[-1]):
            if self.checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(self._adapted_layer, index, tokens, use_reentrant=False)
            else:
                tokens = self._adapted_layer(index, tokens)
            if index + 1 in self.tap_layers:
                taps.append(self.backbone.final_norm(tokens[:, self.backbone.prefix_tokens :]))
        return taps

    def _adapted_layer(self, index: int, tokens: Tensor) -> Tensor:
        """One transformer layer (0-based), and its adapter where it has one."""
        output = self.backbone.layer(index, tokens)
        if index not in self.adapter_layers:
            return output
        return self.layer_adapters[self.adapter_layers.index(index)](output)

    def predict(self, images: Tensor, anchors: Tensor) -> InferenceBatch:
        """Raw anomaly maps and detection scores against given anchors.

        Args:
            images: Normalised images ``(B, 3, H, W)`` of `input_size`.
            anchors: ``(E, 2)``, or ``(B, E, 2)`` where each image has its own class.

        Returns:
            ``anomaly_map`` ``(B, H, W)`` and ``pred_score`` ``(B,)``, both in [0, 1]: the detection score, or with a memory
            the map's peak.

        Raises:
            ValueError: If the images have another size.
        """
        _require_size(images, self.input_size, "image_size or tiles")

        if self.memory is not None:
            return self._predict_with_memory(images, anchors, self.memory)
        seen = images if self.ignored is None else self.ignored.paint_over(images)

        def predict_tile(tile: Tensor) -> tuple[Tensor, Tensor]:
            taps, detection = self.features(tile)
            return tap_average(taps, anchors, self.backbone.grid), detection_score(detection, anchors)

        if self.tiles == 1:  # tiling would give the same; exported models keep the simpler graph
            difference, score = predict_tile(seen)
        else:
            difference, score = predict_tiled(predict_tile, seen, self.backbone.grid, self.tiles)
        return InferenceBatch(anomaly_map=self._full_map(self._blurred(difference)), pred_score=score)

    def evidence(self, images: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
        """What text and target say of each token, to be fused.

        Returns:
            The text's blurred differences ``(B, rows, columns)``, and `centred_tokens` ``(B, T, L, C)``.
        """
        difference, tokens = self._sharp_evidence(images, anchors)
        return self._blurred(difference), tokens

    def _sharp_evidence(self, images: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
        """`evidence` before the blur."""
        seen = images if self.ignored is None else self.ignored.paint_over(images)
        taps, _, tokens = self.features_and_taps(seen)
        return tap_average(taps, anchors, self.backbone.grid), centred_tokens(tokens)

    def fused_map(self, difference: Tensor, distance: Tensor, share: Tensor) -> Tensor:
        """Anomaly maps ``(B, H, W)`` of two evidences.

        Args:
            difference: The text's, ``(B, rows, columns)``.
            distance: To a memory or a lot, ``(B, L)``.
            share: Of the distance.
        """
        return self._full_map(fuse(difference, self.smoothed(distance), share))

    def smoothed(self, distance: Tensor) -> Tensor:
        """Distances ``(B, L)`` to a memory or a lot, as they are fused: smoothed ``(B, rows, columns)``."""
        on_grid = distance.unflatten(-1, self.backbone.grid)
        return smooth_distance(on_grid) if self.ignored is None else self.ignored.smooth(on_grid, smooth_distance)

    @property
    def judged_tokens(self) -> Tensor:
        """Numbers of the tokens of an image that are judged ``(L',)``: all but those that see something ignored."""
        if self.ignored is None:
            return torch.arange(math.prod(self.backbone.grid), device=self.anchors.device)
        return self.ignored.tokens.flatten().nonzero().squeeze(1)

    def _blurred(self, difference: Tensor) -> Tensor:
        blur = partial(blur_grid, domain=self.domain)
        return blur(difference) if self.ignored is None else self.ignored.smooth(difference, blur)

    def _full_map(self, difference: Tensor) -> Tensor:
        maps = anomaly_map(resize_map(difference, self.input_size))
        return maps if self.ignored is None else self.ignored.hide(maps)

    def _predict_with_memory(self, images: Tensor, anchors: Tensor, memory: TokenMemory) -> InferenceBatch:
        difference, tokens = self._sharp_evidence(images, anchors)
        distance = memory(tokens)
        if self.corrections is None:
            maps = self.fused_map(self._blurred(difference), distance, memory.share)
        else:
            judged = ~self.corrections(tokens, distance, self.backbone.grid)
            if self.ignored is not None:
                judged = judged & self.ignored.tokens
            text = smooth_judged(difference, judged, partial(blur_grid, domain=self.domain))
            near = smooth_judged(distance.unflatten(-1, self.backbone.grid), judged, smooth_distance)
            maps = self._full_map(fuse(text, near, memory.share))
        # Where the target is known, the detection score adds nothing to the map's peak.
        return InferenceBatch(anomaly_map=maps, pred_score=maps.amax(dim=(-2, -1)))

    def forward(self, images: Tensor) -> InferenceBatch | tuple[list[Tensor], Tensor]:
        """`predict` against the current class's anchors in evaluation mode, `features` in training mode."""
        return self.features(images) if self.training else self.predict(images, self.anchors)


def _require_size(images: Tensor, size: tuple[int, int], arguments: str) -> None:
    if tuple(images.shape[-2:]) != size:
        raise ValueError(f"images are {tuple(images.shape[-2:])}, the model takes {size}: resize them, or set {arguments}")
