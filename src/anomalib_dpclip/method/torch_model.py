"""DP-CLIP as a plain torch module: wiring from tokens to maps and scores. The maths is in the modules it imports.

DP-CLIP (Feature Decoupling and Channel Purification), inference.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import torch
from anomalib.data import InferenceBatch
from torch import Tensor

from anomalib_dpclip.method.adapted_tower import AdaptedTower, require_size
from anomalib_dpclip.method.anomaly_map import anomaly_map, blur_grid, resize_map, tap_average
from anomalib_dpclip.method.corrections import Corrections
from anomalib_dpclip.method.domain import BLUR, Domain
from anomalib_dpclip.method.evidence import Evidence
from anomalib_dpclip.method.ignored_region import IgnoredRegion, smooth_judged
from anomalib_dpclip.method.memory import TokenMemory, centred_tokens, fuse, smooth_distance
from anomalib_dpclip.method.tiling import AT_ONCE, predict_tiled


class DPCLIPModel(AdaptedTower):
    """An adapted tower that judges: by text, and by what it remembers of the target where that is known.

    Args:
        clip: As in `AdaptedTower`.
        domain: ``"industrial"`` or ``"medical"``: which blur the anomaly map gets.
        tiles: `predict` takes images of so many times the backbone's height and width, and sees them tile by tile.
        architecture: The other arguments of `AdaptedTower`.

    Attributes:
        anchors: Text anchors ``(E, 2)`` of the current class, columns normal and abnormal (buffer).
        rehearsing: Whether `predict` sees one tile of each image only: shapes are right, values are not.
        memory: Patch tokens of photos of the target, where there are any: `predict` then judges by them too.
        ignored: Where nothing is judged, if there is such a place.
        corrections: What a memory is not to call anomalous again, if there is such a thing.

    Raises:
        ValueError: As in `AdaptedTower`, for an unknown domain, or for an image too small for the blur.
    """

    anchors: Tensor

    def __init__(self, clip: Any, *, domain: Domain = "industrial", tiles: int = 1, **architecture: Any) -> None:
        if tiles < 1:
            raise ValueError(f"tiles must be at least 1, not {tiles}")
        super().__init__(clip, **architecture)
        self.tiles = tiles
        self.rehearsing = False
        self.domain = domain
        self.register_buffer("anchors", torch.zeros(self.backbone.embed_dim, 2))
        self.memory: TokenMemory | None = None
        self.ignored: IgnoredRegion | None = None
        self.corrections: Corrections | None = None

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

    def predict(self, images: Tensor, anchors: Tensor) -> InferenceBatch:
        """Raw anomaly maps and detection scores against given anchors.

        Args:
            images: Normalised images ``(B, 3, H, W)`` of `input_size`.
            anchors: ``(E, 2)``, or ``(B, E, 2)`` where each image has its own class.

        Returns:
            ``anomaly_map`` ``(B, H, W)`` and ``pred_score`` ``(B,)``, both in [0, 1]: what the image score knows beside the
            map.

        Raises:
            ValueError: If the images have another size.
        """
        require_size(images, self.input_size, "image_size or tiles")

        if self.memory is not None:
            return self._predict_with_memory(images, anchors, self.memory)
        seen = images if self.ignored is None else self.ignored.paint_over(images)

        if self.tiles == 1:  # tiling would give the same; exported models keep the simpler graph
            difference, score = self._predict_tile(seen, anchors)
        else:
            # Where the GRN pools over the batch, a tile may only see the same tile of the other images.
            at_once = 1 if self.grn_pooling == "batch" else AT_ONCE
            size = (self.backbone.grid, self.tiles)
            difference, score = predict_tiled(self._predict_tile, seen, anchors, *size, at_once, self.rehearsing)
        return InferenceBatch(anomaly_map=self._full_map(self._blurred(difference)), pred_score=score)

    def _predict_tile(self, images: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
        """Differences on the token grid ``(B, rows, columns)`` and scores ``(B,)`` of images of the backbone's size."""
        seen = self.encode(images, anchors)
        return tap_average(seen.taps, anchors, self.backbone.grid), seen.score

    def evidence(self, images: Tensor, anchors: Tensor) -> Evidence:
        """What text and target say of each token, to be fused, and the image's score."""
        sharp = self.unblurred_evidence(images, anchors)
        return sharp._replace(difference=self._blurred(sharp.difference))

    def unblurred_evidence(self, images: Tensor, anchors: Tensor) -> Evidence:
        """`evidence` before the blur."""
        seen = self.encode(images if self.ignored is None else self.ignored.paint_over(images), anchors)
        return Evidence(tap_average(seen.taps, anchors, self.backbone.grid), *centred_tokens(seen.tokens), seen.score)

    def fused_map(self, difference: Tensor, distance: Tensor, share: Tensor) -> Tensor:
        """Anomaly maps ``(B, H, W)`` of two evidences.

        Args:
            difference: The text's, ``(B, rows, columns)``.
            distance: To a memory or a lot, ``(B, L)``.
            share: Of the distance.
        """
        return self._full_map(fuse(difference, self.smoothed(distance), share))

    def fused(self, difference: Tensor, distance: Tensor, share: Tensor, judged: Tensor | None = None) -> Tensor:
        """Two evidences of tokens, smoothed and fused ``(B, rows, columns)``.

        Args:
            difference: The text's, not smoothed, ``(B, rows, columns)``.
            distance: To a memory ``(B, L)``.
            share: Of the distance.
            judged: Which tokens are ``(B, rows, columns)`` bool, of those that see nothing ignored; by default all of them.
        """
        if judged is not None and self.ignored is not None:
            judged = judged & self.ignored.tokens
        return fuse(self._blurred(difference, judged), self.smoothed(distance, judged), share)

    def smoothed(self, distance: Tensor, judged: Tensor | None = None) -> Tensor:
        """Distances ``(B, L)`` to a memory or a lot, as they are fused: smoothed ``(B, rows, columns)``.

        Args:
            distance: The distances.
            judged: Which tokens are ``(B, rows, columns)`` bool; by default those that see nothing ignored.
        """
        return self._smooth(distance.unflatten(-1, self.backbone.grid), smooth_distance, judged)

    @property
    def judged_tokens(self) -> Tensor:
        """Numbers of the tokens of an image that are judged ``(L',)``: all but those that see something ignored."""
        if self.ignored is None:
            return torch.arange(math.prod(self.backbone.grid), device=self.anchors.device)
        return self.ignored.tokens.flatten().nonzero().squeeze(1)

    def _blurred(self, difference: Tensor, judged: Tensor | None = None) -> Tensor:
        return self._smooth(difference, partial(blur_grid, domain=self.domain), judged)

    def _smooth(self, values: Tensor, blur: Callable[[Tensor], Tensor], judged: Tensor | None) -> Tensor:
        if judged is not None:
            return smooth_judged(values, judged, blur)
        return blur(values) if self.ignored is None else self.ignored.smooth(values, blur)

    def _full_map(self, difference: Tensor) -> Tensor:
        maps = anomaly_map(resize_map(difference, self.input_size))
        return maps if self.ignored is None else self.ignored.hide(maps)

    def fused_prediction(self, difference: Tensor, distance: Tensor, share: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
        """`fused_map`, and what the image score knows beside it."""
        maps = self.fused_map(difference, distance, share)
        return maps, self.beside(maps, score)

    def beside(self, maps: Tensor, score: Tensor) -> Tensor:
        """Where the target is known the detection projector adds nothing to the map's peak, which stands for it."""
        return maps.amax(dim=(-2, -1)) if self.detection == "projector" else score

    def _predict_with_memory(self, images: Tensor, anchors: Tensor, memory: TokenMemory) -> InferenceBatch:
        seen = self.unblurred_evidence(images, anchors)
        distance = memory(seen.tokens)
        if self.corrections is None:
            maps = self._full_map(self.fused(seen.difference, distance, memory.share))
            return InferenceBatch(anomaly_map=maps, pred_score=self.beside(maps, seen.score))
        explained = self.corrections(seen.tokens, seen.means, distance)
        maps = self._full_map(self.fused(seen.difference, distance, memory.share, ~explained))
        rest = self.corrections.without_explained(seen.score, maps.amax(dim=(-2, -1)))
        score = torch.where(explained.flatten(1).any(dim=1), rest, seen.score)
        return InferenceBatch(anomaly_map=maps, pred_score=self.beside(maps, score))

    def forward(self, images: Tensor) -> InferenceBatch | tuple[list[Tensor], Tensor]:
        """`predict` against the current class's anchors in evaluation mode, `features` in training mode."""
        return self.features(images) if self.training else self.predict(images, self.anchors)
