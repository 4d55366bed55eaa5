"""CLIP without adapters: the baseline that learned adapters are compared with.

No part of DP-CLIP's paper, but what its gain is measured against.
"""

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional

from anomalib_dpclip.method.domain import Domain
from anomalib_dpclip.method.torch_model import DPCLIPModel

if TYPE_CHECKING:
    from open_clip import CLIP

UNADAPTED = "clip"
"""Value of the model's ``weights`` for the backbone without adapters."""


class UnadaptedCLIP(DPCLIPModel):
    """The backbone's own tokens in the joint space: patch tokens of the last layer for the map, the class token for the score.

    This is CLIP at its best without learning: the class token is what CLIP was trained to compare with text, and earlier
    layers are no part of the joint space.

    Args:
        clip: As in `DPCLIPModel`.
        domain: As in `DPCLIPModel`.
        tiles: As in `DPCLIPModel`.
    """

    def __init__(self, clip: "CLIP", domain: Domain = "industrial", tiles: int = 1) -> None:
        depth = len(clip.visual.transformer.resblocks)
        super().__init__(clip, adapter_layers=(), tap_layers=(depth,), domain=domain, tiles=tiles)
        self.requires_grad_(False)

    def features_and_taps(self, images: Tensor) -> tuple[list[Tensor], Tensor, list[Tensor]]:
        """See `DPCLIPModel.features_and_taps`."""
        tokens = self.backbone.embed(images)
        for index in range(self.backbone.depth):
            tokens = self.backbone.layer(index, tokens)
        final = self.backbone.final_norm(tokens)
        tokens = functional.normalize(final @ self.backbone.visual.proj, dim=-1)
        return [tokens[:, 1:]], tokens[:, 0], [final[:, 1:]]
