"""What the method needs of a frozen vision tower, whoever built it. Tokens leave it batch-first, ``(B, L, C)``."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn


class VisionTower(nn.Module, ABC):
    """A frozen vision transformer, layer by layer.

    It never learns: no parameter takes a gradient, and `train` leaves it in evaluation mode.

    Args:
        visual: ``clip.visual`` of an open_clip CLIP.
        depth: See the attributes.
        width: See the attributes.
        embed_dim: See the attributes.
        patch_size: See the attributes.
        image_size: See the attributes.
        prefix_tokens: See the attributes.

    Attributes:
        visual: The tower itself, whose own forward gives the image feature.
        depth: Number of layers.
        width: Width ``C`` of the tokens.
        embed_dim: Size ``E`` of the joint space of image and text.
        patch_size: Side of a patch in pixels.
        image_size: Height and width of the images.
        grid: Rows and columns of patches.
        prefix_tokens: Tokens before those of the patches: a class token, or none.
    """

    def __init__(
        self,
        visual: Any,
        *,
        depth: int,
        width: int,
        embed_dim: int,
        patch_size: int,
        image_size: tuple[int, int],
        prefix_tokens: int,
    ) -> None:
        super().__init__()
        self.visual: Any = visual.requires_grad_(False).eval()
        self.depth, self.width, self.embed_dim = depth, width, embed_dim
        self.patch_size, self.image_size, self.prefix_tokens = patch_size, image_size, prefix_tokens
        self.grid = (image_size[0] // patch_size, image_size[1] // patch_size)
        self.eval()

    def train(self, mode: bool = True) -> "VisionTower":
        """Stay in evaluation mode."""
        del mode
        return super().train(False)

    @property
    @abstractmethod
    def places_patches(self) -> bool:
        """Whether patch tokens have a place in the joint space without anything learned."""

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
        """The image in the joint space ``(B, E)``, not normalised, pooled and projected as the tower itself does.

        Args:
            tokens: ``(B, P + L, C)``, after the last layer.
        """

    @abstractmethod
    def patch_features(self, tokens: Tensor) -> Tensor:
        """The patches in the joint space ``(B, L, E)``, not normalised, put through the same as the image.

        Args:
            tokens: ``(B, P + L, C)``, after the last layer, of a tower that `places_patches`.
        """
