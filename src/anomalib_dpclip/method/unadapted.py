"""CLIP without adapters: no part of DP-CLIP's paper, but what its gain is measured against."""

import logging
from typing import Any

from torch import Tensor
from torch.nn import functional

from anomalib_dpclip.clip.towers import tower_of
from anomalib_dpclip.data_sets.domain import Domain
from anomalib_dpclip.method.anomaly_map import class_token_score
from anomalib_dpclip.method.torch_model import DPCLIPModel

logger = logging.getLogger(__name__)


class UnadaptedCLIP(DPCLIPModel):
    """The backbone's own features in the joint space: the image feature for the score, the last patch tokens for the map.

    This is CLIP at its best without learning: the image feature, pooled as the backbone itself pools, is what it was trained
    to compare with text, and earlier layers are no part of the joint space. A backbone that pools by attention (SigLIP,
    PE-Core) has no place there for patches: its map is 0.5 everywhere, and only its image scores mean something.

    Raises:
        ValueError: For the medical domain, whose image score is the map's peak, with a backbone that has no map.
    """

    def __init__(self, clip: Any, domain: Domain = "industrial") -> None:
        depth = tower_of(clip.visual).depth
        super().__init__(clip, adapter_layers=(), tap_layers=(depth,), domain=domain)
        self.requires_grad_(False)
        if not self.backbone.places_patches:
            logger.warning("this backbone pools by attention: without adapters its anomaly map says nothing")

    def _check_domain(self, domain: Domain) -> None:
        if domain == "medical" and not self.backbone.places_patches:
            raise ValueError(
                "weights='clip' has no anomaly map on a backbone that pools by attention, and a medical image score is the "
                "map's peak: train adapters, or choose another backbone"
            )
        super()._check_domain(domain)

    def features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Patches ``(B, L, E)`` and images ``(B, E)`` in the joint space, unit vectors."""
        patches, image, _ = self._joint_features(images)
        return patches, image

    def encode(self, images: Tensor, anchors: Tensor) -> tuple[list[Tensor], Tensor, list[Tensor]]:
        """See `DPCLIPModel.encode`."""
        patches, image, taps = self._joint_features(images)
        return patches, class_token_score(image, anchors), taps

    def _joint_features(self, images: Tensor) -> tuple[list[Tensor], Tensor, list[Tensor]]:
        taps, tokens = self.tap_tokens(images)
        image = self.backbone.image_feature(tokens)
        if self.backbone.places_patches:
            patches = self.backbone.patch_features(tokens)
        else:  # as far from one anchor as from the other
            patches = image.new_zeros(len(image), self.backbone.grid[0] * self.backbone.grid[1], self.backbone.embed_dim)
        return [functional.normalize(patches, dim=-1)], functional.normalize(image, dim=-1), taps
