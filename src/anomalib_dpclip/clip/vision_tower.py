"""The frozen vision tower, layer by layer. Tokens leave it batch-first, ``(B, L, C)``."""

from typing import Any

import torch
from torch import Tensor, nn

from anomalib_dpclip.clip.self_attention import self_attention


class VisionTower(nn.Module):
    """A frozen open_clip vision transformer, layer by layer.

    It never learns: no parameter takes a gradient, and `train` leaves it in evaluation mode.

    Args:
        visual: ``clip.visual`` of an open_clip CLIP with a native vision transformer.

    Raises:
        ValueError: If the tower is not a native open_clip vision transformer.
    """

    def __init__(self, visual: Any) -> None:
        super().__init__()
        parts = ("conv1", "class_embedding", "transformer", "ln_post", "proj")
        # A tower that pools by attention normalises after it: its tokens have no place in the joint space.
        native = all(hasattr(visual, name) for name in parts) and getattr(visual, "attn_pool", None) is None
        if not native or not hasattr(visual.transformer, "resblocks"):
            raise ValueError(
                f"backbone must have a native open_clip vision transformer (such as ViT-L-14-336), not a "
                f"{type(visual).__name__}"
            )
        self.visual: Any = visual.requires_grad_(False).eval()
        self.depth = len(visual.transformer.resblocks)
        self.width = int(visual.conv1.out_channels)
        self.embed_dim = int(visual.proj.shape[1])
        self.patch_size = int(visual.conv1.kernel_size[0])
        height, width = visual.image_size if isinstance(visual.image_size, tuple) else [visual.image_size] * 2
        self.image_size = (int(height), int(width))
        self.grid = (self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size)
        self.eval()

    def train(self, mode: bool = True) -> "VisionTower":
        """Stay in evaluation mode."""
        del mode
        return super().train(False)

    def embed(self, images: Tensor) -> Tensor:
        """Class token and patch tokens ``(B, 1 + L, C)`` of normalised images ``(B, 3, H, W)``, before the first layer."""
        visual = self.visual
        # `--trainer.precision 16-true` halves the weights.
        patches = visual.conv1(images.to(visual.conv1.weight.dtype)).flatten(2).transpose(1, 2)
        class_token = visual.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
        tokens = torch.cat([class_token, patches], dim=1) + visual.positional_embedding.to(patches.dtype)
        return visual.ln_pre(tokens)

    def layer(self, index: int, tokens: Tensor) -> Tensor:
        """Run transformer layer ``index`` (0-based) on tokens ``(B, 1 + L, C)``."""
        block = self.visual.transformer.resblocks[index]
        # Not `type(...) is`: torch's exporter runs subclasses. What is none is a variant of open_clip's own, batch-first.
        if not isinstance(block.attn, nn.MultiheadAttention):
            return block(tokens)
        attended = tokens + block.ls_1(self_attention(block.attn, block.ln_1(tokens)))
        return attended + block.ls_2(block.mlp(block.ln_2(attended)))

    def final_norm(self, tokens: Tensor) -> Tensor:
        """The tower's ``ln_post`` on tokens ``(B, L, C)``."""
        return self.visual.ln_post(tokens)
