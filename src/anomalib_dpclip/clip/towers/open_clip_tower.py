"""Vision transformers of open_clip's own: OpenAI, LAION, DataComp, DFN, MetaCLIP, CLIPA."""

from typing import Any

import torch
from torch import Tensor, nn

from anomalib_dpclip.clip.towers.self_attention import self_attention
from anomalib_dpclip.clip.towers.tower import VisionTower


class OpenCLIPTower(VisionTower):
    """open_clip's own vision transformer. It has a class token; most pool by it, CLIPA's by the average of the patches.

    Args:
        visual: ``clip.visual`` of an open_clip CLIP.

    Raises:
        ValueError: If the tower is no such transformer, or pools by attention.
    """

    def __init__(self, visual: Any) -> None:
        parts = ("conv1", "class_embedding", "transformer", "ln_post", "proj")
        # A tower that pools by attention normalises after it: its tokens do not have the width that the norm has.
        native = all(hasattr(visual, name) for name in parts) and getattr(visual, "attn_pool", None) is None
        if not native or not hasattr(visual.transformer, "resblocks") or visual.pool_type not in {"tok", "avg"}:
            raise ValueError(
                f"backbone must have a native open_clip vision transformer (such as ViT-L-14-336), not a "
                f"{type(visual).__name__}"
            )
        height, width = visual.image_size if isinstance(visual.image_size, tuple) else [visual.image_size] * 2
        super().__init__(
            visual,
            depth=len(visual.transformer.resblocks),
            width=int(visual.conv1.out_channels),
            embed_dim=int(visual.proj.shape[1]),
            patch_size=int(visual.conv1.kernel_size[0]),
            image_size=(int(height), int(width)),
            prefix_tokens=1,
        )

    @property
    def places_patches(self) -> bool:
        """See `VisionTower.places_patches`."""
        return True

    def embed(self, images: Tensor) -> Tensor:
        """See `VisionTower.embed`."""
        visual = self.visual
        # `--trainer.precision 16-true` halves the weights.
        patches = visual.conv1(images.to(visual.conv1.weight.dtype)).flatten(2).transpose(1, 2)
        class_token = visual.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
        tokens = torch.cat([class_token, patches], dim=1) + visual.positional_embedding.to(patches.dtype)
        return visual.ln_pre(tokens)

    def layer(self, index: int, tokens: Tensor) -> Tensor:
        """See `VisionTower.layer`."""
        block = self.visual.transformer.resblocks[index]
        # Not `type(...) is`: torch's exporter runs subclasses. What is none is a variant of open_clip's own, batch-first.
        if not isinstance(block.attn, nn.MultiheadAttention):
            return block(tokens)
        attended = tokens + block.ls_1(self_attention(block.attn, block.ln_1(tokens)))
        return attended + block.ls_2(block.mlp(block.ln_2(attended)))

    def final_norm(self, tokens: Tensor) -> Tensor:
        """See `VisionTower.final_norm`."""
        return self.visual.ln_post(tokens)

    def image_feature(self, tokens: Tensor) -> Tensor:
        """See `VisionTower.image_feature`."""
        visual = self.visual
        if visual.pool_type == "tok":  # a norm acts on each token: before or after such pooling is the same
            # By itself: of a product of all tokens, quantised, OpenVINO takes one token wrongly.
            return visual.ln_post(tokens[:, 0]) @ visual.proj
        if visual.final_ln_after_pool:
            return visual.ln_post(tokens[:, 1:].mean(dim=1)) @ visual.proj
        return self.patch_features(tokens).mean(dim=1)

    def patch_features(self, tokens: Tensor) -> Tensor:
        """See `VisionTower.patch_features`."""
        return self.visual.ln_post(tokens[:, 1:]) @ self.visual.proj
