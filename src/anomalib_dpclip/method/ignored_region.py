"""Where nothing is judged: what lies there, a fixture or a timestamp, changes neither map nor score.

No part of DP-CLIP's paper. Ignored pixels are painted over before the tower, in the mean colour of the image's others, so that
no attention carries what they show; their tokens are left out of every average; and the map is 0 there.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class IgnoredRegion(nn.Module):
    """Pixels and tokens that are not judged.

    Args:
        judged: What is judged, ``(H, W)`` bool, of the model's input size.
        grid: Rows and columns of the token grid over all of it.
        photo_size: Width and height of the photos that it is meant for.

    Attributes:
        tokens: Tokens that are judged ``(rows, columns)`` bool: those that see nothing ignored.

    Raises:
        ValueError: If no token is judged, or everything is.
    """

    judged: Tensor
    tokens: Tensor
    photo_size: Tensor

    def __init__(self, judged: Tensor, grid: tuple[int, int], photo_size: tuple[int, int]) -> None:
        super().__init__()
        tokens = functional.adaptive_avg_pool2d(judged[None].float(), grid)[0] == 1
        if judged.all():
            raise ValueError("it is black all over, and nothing would be ignored: what is to be ignored must be white")
        if not tokens.any():
            raise ValueError("it leaves nothing to judge, no patch of the backbone is free of it")
        self.register_buffer("judged", judged)
        self.register_buffer("tokens", tokens)
        self.register_buffer("photo_size", torch.tensor(photo_size))

    def require_size(self, width: int, height: int, name: str) -> None:
        """Make sure that a photo has the size that the region was drawn for.

        Raises:
            ValueError: If it has another; names it and both sizes.
        """
        own = tuple(self.photo_size.tolist())
        if (width, height) != own:
            raise ValueError(
                f"{name} is {width}x{height}, and the picture of what to ignore is {own[0]}x{own[1]}: draw it on a photo of "
                f"the same size (--model.ignore)"
            )

    def paint_over(self, images: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` in which each one's ignored pixels have the mean colour of its others."""
        judged = self.judged.to(images.device)
        mean = (images * judged).sum(dim=(-2, -1), keepdim=True) / judged.sum()
        return torch.where(judged, images, mean)

    def smooth(self, values: Tensor, blur: Callable[[Tensor], Tensor]) -> Tensor:
        """`smooth_judged` of values ``(B, rows, columns)``."""
        return smooth_judged(values, self.tokens, blur)

    def hide(self, maps: Tensor) -> Tensor:
        """Maps ``(B, H, W)``, 0 where nothing is judged."""
        return torch.where(self.judged.to(maps.device), maps, torch.zeros_like(maps))


def smooth_judged(values: Tensor, judged: Tensor, blur: Callable[[Tensor], Tensor]) -> Tensor:
    """Blur values of tokens by those of judged ones alone (normalised convolution).

    Where no judged token is near enough the mean of all of them stands.

    Args:
        values: ``(B, rows, columns)``.
        judged: Which tokens are, ``(rows, columns)`` or ``(B, rows, columns)`` bool.
        blur: What blurs such values.
    """
    weight = judged.to(values).expand_as(values)
    total = blur(weight)
    known = values * weight
    mean = known.sum(dim=(-2, -1), keepdim=True) / weight.sum(dim=(-2, -1), keepdim=True).clamp_min(1)
    return torch.where(total > 0, blur(known) / total.clamp_min(torch.finfo(values.dtype).tiny), mean)
