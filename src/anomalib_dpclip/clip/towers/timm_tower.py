"""Vision transformers of timm inside open_clip: SigLIP and SigLIP 2, PE-Core, EVA, and those of MobileCLIP that are ViTs."""

from typing import Any

from torch import Tensor

from anomalib_dpclip.clip.towers.tower import VisionTower
from anomalib_dpclip.files.private_names import timm_tokens


class TimmTower(VisionTower):
    """A vision transformer of timm: its ``VisionTransformer``, or ``Eva``, whose layers take rotary positions.

    Args:
        visual: ``clip.visual`` of an open_clip CLIP: open_clip's wrapper with timm's model as ``trunk``.

    Raises:
        ValueError: If the trunk is convolutional, hybrid or otherwise no such transformer; names it.
    """

    def __init__(self, visual: Any) -> None:
        trunk = visual.trunk
        reason = _what_does_not_fit(trunk)
        if reason:
            raise ValueError(f"backbone must have a vision transformer (such as ViT-L-14-336), not a {reason}")
        embed = trunk.patch_embed
        height, width = embed.img_size
        super().__init__(
            visual,
            depth=len(trunk.blocks),
            width=int(trunk.embed_dim),
            embed_dim=_joint_size(visual),
            patch_size=int(embed.feat_ratio()),
            image_size=(int(height), int(width)),
            prefix_tokens=int(trunk.num_prefix_tokens),
        )

    @property
    def places_patches(self) -> bool:
        """See `VisionTower.places_patches`: not where attention pools, whose output is no patch's."""
        return getattr(self.visual.trunk, "attn_pool", None) is None  # older versions of Eva have none

    def embed(self, images: Tensor) -> Tensor:
        """See `VisionTower.embed`."""
        trunk = self.visual.trunk
        images = images.to(next(trunk.patch_embed.parameters()).dtype)  # `--trainer.precision 16-true` halves the weights
        return trunk.norm_pre(timm_tokens(trunk, trunk.patch_embed(images)))

    def layer(self, index: int, tokens: Tensor) -> Tensor:
        """See `VisionTower.layer`."""
        trunk = self.visual.trunk
        rope = getattr(trunk, "rope", None)
        if rope is None:
            return trunk.blocks[index](tokens)
        return trunk.blocks[index](tokens, rope=rope.get_embed())  # a buffer: the image size is fixed

    def final_norm(self, tokens: Tensor) -> Tensor:
        """See `VisionTower.final_norm`; towers that pool by average have their norm after it."""
        trunk = self.visual.trunk
        return trunk.fc_norm(trunk.norm(tokens))

    def image_feature(self, tokens: Tensor) -> Tensor:
        """See `VisionTower.image_feature`."""
        trunk = self.visual.trunk
        return self.visual.head(trunk.forward_head(trunk.norm(tokens)))

    def patch_features(self, tokens: Tensor) -> Tensor:
        """See `VisionTower.patch_features`."""
        trunk = self.visual.trunk
        return self.visual.head(trunk.head(self.final_norm(tokens[:, self.prefix_tokens :])))


def resize_timm(visual: Any, image_size: int) -> None:
    """Fit a timm tower, weights loaded, to another image size; its absolute positions are interpolated.

    Args:
        visual: As in `TimmTower`.
        image_size: Side in pixels, a multiple of the patch size.

    Raises:
        ValueError: If the installed timm is too old to do so.
    """
    if not hasattr(visual.trunk, "set_input_size"):
        raise ValueError(f"this timm cannot resize {type(visual.trunk).__name__}: upgrade it (pip install --upgrade timm)")
    visual.trunk.set_input_size(img_size=(image_size, image_size))
    visual.image_size = (image_size, image_size)


def _what_does_not_fit(trunk: Any) -> str | None:
    """Name of what is wrong with a timm model, None if it fits."""
    from timm.layers import PatchEmbed
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer
    from timm.models.vision_transformer_hybrid import ConvStem

    name = type(trunk).__name__
    if not isinstance(trunk, (VisionTransformer, Eva)):
        return f"{name}, which is convolutional, hierarchical or of another kind"
    stem = trunk.patch_embed
    # The stem of MobileCLIP-B: its strides are its kernels, so that a token sees its own patch alone, as in a ViT.
    if not isinstance(stem, PatchEmbed) and not isinstance(getattr(stem, "backbone", None), ConvStem):
        return f"hybrid of convolutions and {name}"
    if getattr(trunk, "rope_mixed", False):
        return f"{name} with rotary positions of its own in each layer"
    if trunk.global_pool not in {"token", "avg", "map"}:
        return f"{name} that pools by {trunk.global_pool!r}"
    return None


def _joint_size(visual: Any) -> int:
    """Size of the joint space: of the last projection, wherever it is."""
    sizes = [layer.out_features for layer in visual.head.modules() if hasattr(layer, "out_features")]
    trunk = visual.trunk
    return int(sizes[-1] if sizes else getattr(trunk.head, "out_features", trunk.num_features))
