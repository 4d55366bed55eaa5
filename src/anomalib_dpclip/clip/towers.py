"""Frozen vision transformers, whoever built them: tokens ``(B, L, C)``, batch-first, layer by layer."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from anomalib_dpclip.files.private_names import timm_tokens


class VisionTower(nn.Module, ABC):
    """A frozen vision transformer: no parameter takes a gradient, and `train` leaves it in evaluation mode.

    Attributes:
        visual: ``clip.visual`` of an open_clip CLIP.
        depth: Number of layers.
        width: Width ``C`` of the tokens.
        embed_dim: Size ``E`` of the joint space of image and text.
        patch_size: Side of a patch in pixels.
        image_size: Height and width of the images.
        grid: Rows and columns of patches.
        prefix_tokens: Tokens before those of the patches: a class token, or none.
        places_patches: Whether patch tokens have a place in the joint space without anything learned.
    """

    def __init__(
        self, visual: Any, depth: int, width: int, embed_dim: int, patch_size: int, image_size: Any, prefix_tokens: int
    ) -> None:
        super().__init__()
        self.visual: Any = visual.requires_grad_(False).eval()
        self.depth, self.width, self.embed_dim = depth, int(width), int(embed_dim)
        self.patch_size, self.prefix_tokens = int(patch_size), int(prefix_tokens)
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.grid = (self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size)
        self.places_patches = True
        self.eval()

    def train(self, mode: bool = True) -> "VisionTower":
        """Stay in evaluation mode."""
        del mode
        return super().train(False)

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Prefix and patch tokens ``(B, P + L, C)`` of normalised images ``(B, 3, H, W)``, before the first layer."""

    @abstractmethod
    def layer(self, index: int, tokens: Tensor) -> Tensor:
        """Run transformer layer ``index`` (0-based) on tokens ``(B, P + L, C)``."""

    @abstractmethod
    def final_norm(self, tokens: Tensor) -> Tensor:
        """The norm that ends the tower, on tokens ``(B, L, C)``."""

    @abstractmethod
    def image_feature(self, tokens: Tensor) -> Tensor:
        """The image in the joint space ``(B, E)``, not normalised, pooled as the tower does, of its last ``(B, P + L, C)``."""

    @abstractmethod
    def patch_features(self, tokens: Tensor) -> Tensor:
        """The patches in the joint space ``(B, L, E)``, put through the same as the image, of a tower that `places_patches`."""


def tower_of(visual: Any) -> VisionTower:
    """Wrap ``clip.visual`` of an open_clip CLIP; a ValueError names what it is where the method cannot adapt it."""
    return _TimmTower(visual) if hasattr(visual, "trunk") else _OpenCLIPTower(visual)


class _OpenCLIPTower(VisionTower):
    """open_clip's own. It has a class token; most pool by it, CLIPA's by the average of the patches."""

    def __init__(self, visual: Any) -> None:
        parts = ("conv1", "class_embedding", "transformer", "ln_post", "proj")
        # A tower that pools by attention normalises after it: its tokens do not have the width that the norm has.
        native = all(hasattr(visual, name) for name in parts) and getattr(visual, "attn_pool", None) is None
        if not native or not hasattr(visual.transformer, "resblocks") or visual.pool_type not in {"tok", "avg"}:
            name = type(visual).__name__
            raise ValueError(f"backbone must have a native open_clip vision transformer (such as ViT-L-14-336), not a {name}")
        size = visual.image_size if isinstance(visual.image_size, tuple) else [visual.image_size] * 2
        conv = visual.conv1
        depth = len(visual.transformer.resblocks)
        super().__init__(visual, depth, conv.out_channels, visual.proj.shape[1], conv.kernel_size[0], size, prefix_tokens=1)

    def embed(self, images: Tensor) -> Tensor:
        visual = self.visual
        # `--trainer.precision 16-true` halves the weights.
        patches = visual.conv1(images.to(visual.conv1.weight.dtype)).flatten(2).transpose(1, 2)
        class_token = visual.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
        tokens = torch.cat([class_token, patches], dim=1) + visual.positional_embedding.to(patches.dtype)
        return visual.ln_pre(tokens)

    def layer(self, index: int, tokens: Tensor) -> Tensor:
        block = self.visual.transformer.resblocks[index]
        # Not `type(...) is`: torch's exporter runs subclasses. What is none is a variant of open_clip's own, batch-first.
        if not isinstance(block.attn, nn.MultiheadAttention):
            return block(tokens)
        attended = tokens + block.ls_1(self_attention(block.attn, block.ln_1(tokens)))
        return attended + block.ls_2(block.mlp(block.ln_2(attended)))

    def final_norm(self, tokens: Tensor) -> Tensor:
        return self.visual.ln_post(tokens)

    def image_feature(self, tokens: Tensor) -> Tensor:
        visual = self.visual
        if visual.pool_type == "tok":  # a norm acts on each token: before or after such pooling is the same
            # By itself: of a product of all tokens, quantised, OpenVINO takes one token wrongly.
            return visual.ln_post(tokens[:, 0]) @ visual.proj
        if visual.final_ln_after_pool:
            return visual.ln_post(tokens[:, 1:].mean(dim=1)) @ visual.proj
        return self.patch_features(tokens).mean(dim=1)

    def patch_features(self, tokens: Tensor) -> Tensor:
        return self.visual.ln_post(tokens[:, 1:]) @ self.visual.proj


def self_attention(attention: nn.MultiheadAttention, tokens: Tensor) -> Tensor:
    """Attend from all tokens ``(B, L, C)`` to all, equal to ``attention(tokens, tokens, tokens)`` up to rounding.

    torch's own forward turns tokens into ``(L, B, C)`` views. Products with those are a matrix product per token position (in
    bf16 on a CPU dozens of times slower), and without gradients its fast path holds the attention weights in memory.
    """
    projected = linear(tokens, attention.in_proj_weight, attention.in_proj_bias)
    heads = projected.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (3, B, heads, L, C / heads)
    if tokens.device.type == "cpu":
        heads = heads.contiguous()  # earned back there; CUDA's kernels read heads as they lie
    attended = scaled_dot_product_attention(*heads.unbind())
    return attention.out_proj(attended.transpose(1, 2).flatten(2))


class _TimmTower(VisionTower):
    """timm's ``VisionTransformer`` inside open_clip's wrapper, or its ``Eva``, whose layers take rotary positions."""

    def __init__(self, visual: Any) -> None:
        trunk = visual.trunk
        if reason := _what_does_not_fit(trunk):
            raise ValueError(f"backbone must have a vision transformer (such as ViT-L-14-336), not a {reason}")
        depth, patch = len(trunk.blocks), trunk.patch_embed
        # The size of the joint space is that of the last projection, wherever it is.
        projected = [layer.out_features for layer in visual.head.modules() if hasattr(layer, "out_features")]
        joint_size = projected[-1] if projected else getattr(trunk.head, "out_features", trunk.num_features)
        sizes = (trunk.embed_dim, joint_size, patch.feat_ratio(), patch.img_size)
        super().__init__(visual, depth, *sizes, prefix_tokens=trunk.num_prefix_tokens)
        # What attention pools is no patch's. Older versions of Eva have no such attribute.
        self.places_patches = getattr(trunk, "attn_pool", None) is None

    def embed(self, images: Tensor) -> Tensor:
        trunk = self.visual.trunk
        images = images.to(next(trunk.patch_embed.parameters()).dtype)  # `--trainer.precision 16-true` halves the weights
        return trunk.norm_pre(timm_tokens(trunk, trunk.patch_embed(images)))

    def layer(self, index: int, tokens: Tensor) -> Tensor:
        trunk = self.visual.trunk
        rope = getattr(trunk, "rope", None)
        if rope is None:
            return trunk.blocks[index](tokens)
        return trunk.blocks[index](tokens, rope=rope.get_embed())  # a buffer: the image size is fixed

    def final_norm(self, tokens: Tensor) -> Tensor:
        trunk = self.visual.trunk
        return trunk.fc_norm(trunk.norm(tokens))  # towers that pool by average have their norm after it

    def image_feature(self, tokens: Tensor) -> Tensor:
        trunk = self.visual.trunk
        return self.visual.head(trunk.forward_head(trunk.norm(tokens)))

    def patch_features(self, tokens: Tensor) -> Tensor:
        return self.visual.head(self.visual.trunk.head(self.final_norm(tokens[:, self.prefix_tokens :])))


def resize_timm(visual: Any, image_size: int) -> None:
    """Fit a timm tower, weights loaded, to another image size, a multiple of its patch; absolute positions are interpolated."""
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
