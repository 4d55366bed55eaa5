"""Which part of an image is scored: a fixture or a timestamp can be left out of maps, scores, thresholds and metrics."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from anomalib_dpclip.data.images import ImageReadError, photo_size, read_mask

_MIN_SHARE = 1e-6
"""Share of an ignored pixel in a resized one, from which that is ignored too; less is rounding."""


class Region(nn.Module):
    """What is scored of an image: all of it, until something is ignored.

    Attributes:
        scored: Pixels that are scored, ``(H, W)`` bool, of the model's input size; ``None`` for all of them.
        photo_size: Width and height of the photos that it was drawn for ``(2,)``; ``None`` for any.
    """

    scored: Tensor | None
    photo_size: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scored", None)
        self.register_buffer("photo_size", None)

    def ignore(self, path: str | Path, size: tuple[int, int], grid: tuple[int, int], interpolation: str) -> None:
        """Score nothing where a picture of the photos' size is white, resized to the model's input as photos are.

        Raises:
            ImageReadError: If it cannot be read.
            ValueError: If it leaves no token of the model's grid to score, or nothing to ignore.
        """
        ignored = torch.from_numpy(read_mask(path)).bool()
        # Whatever an ignored pixel has a share in is ignored.
        shares = resize(ignored[None].float(), list(size), InterpolationMode(interpolation), antialias=True)[0].abs()
        scored = shares < _MIN_SHARE
        if scored.all():
            raise ValueError(f"--model.region.ignore {path}: it is black all over: what is to be ignored must be white")
        if not _scored_tokens(scored, grid).any():
            raise ValueError(f"--model.region.ignore {path}: it leaves nothing to score: no patch is free of it")
        self.scored, self.photo_size = scored, torch.tensor((ignored.shape[1], ignored.shape[0]))

    def fit_to(self, state: dict[str, Any], prefix: str) -> None:
        """Make room for the region that a state dict holds under a prefix; without one all is scored."""
        for name in ("scored", "photo_size"):
            value = state.get(prefix + name)
            setattr(self, name, None if value is None else torch.zeros_like(value))

    def tokens(self, grid: tuple[int, int]) -> Tensor | None:
        """Tokens that are scored ``(rows, columns)`` bool: those that see nothing ignored; ``None`` for all."""
        return None if self.scored is None else _scored_tokens(self.scored, grid)

    def token_numbers(self, grid: tuple[int, int]) -> Tensor:
        """Numbers of the tokens that are scored ``(L',)``, on the CPU."""
        tokens = self.tokens(grid)
        return torch.arange(grid[0] * grid[1]) if tokens is None else tokens.cpu().flatten().nonzero().squeeze(1)

    def require_size(self, width: int, height: int, name: str) -> None:
        """Make sure that a photo has the size that the region was drawn for; a `ValueError` names it and both sizes."""
        own = (width, height) if self.photo_size is None else tuple(self.photo_size.tolist())
        if (width, height) != own:
            raise ValueError(
                f"{name} is {width}x{height}, and the picture of what to ignore is {own[0]}x{own[1]}: draw it on a photo of "
                f"the same size (--model.region.ignore)"
            )

    def require_sizes(self, paths: Any) -> None:
        """`require_size` of each of these photos, where there are any."""
        for path in [] if self.photo_size is None else paths or ():
            try:
                size = photo_size(path)
            except ImageReadError:  # not a file of ours: whoever made the batch could read it
                continue
            self.require_size(*size, str(path))

    def paint_over(self, images: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` in which each one's ignored pixels have the mean colour of its others."""
        if self.scored is None:
            return images
        mean = (images * self.scored).sum(dim=(-2, -1), keepdim=True) / self.scored.sum()
        return torch.where(self.scored, images, mean)

    def smooth(self, values: Tensor, blur: Callable[[Tensor], Tensor]) -> Tensor:
        """Blur values of tokens ``(B, rows, columns)`` by those of scored ones alone (normalised convolution).

        Where no scored token is near enough the mean of all of them stands.
        """
        tokens = self.tokens((values.shape[-2], values.shape[-1]))
        if tokens is None:
            return blur(values)
        weight = tokens.to(values).expand_as(values)
        total = blur(weight)
        known = values * weight
        mean = known.sum(dim=(-2, -1), keepdim=True) / weight.sum(dim=(-2, -1), keepdim=True).clamp_min(1)
        return torch.where(total > 0, blur(known) / total.clamp_min(torch.finfo(values.dtype).tiny), mean)

    def hide(self, maps: Tensor) -> Tensor:
        """Maps ``(B, H, W)``, 0 where nothing is scored."""
        return maps if self.scored is None else torch.where(self.scored, maps, torch.zeros_like(maps))


def _scored_tokens(scored: Tensor, grid: tuple[int, int]) -> Tensor:
    return functional.adaptive_avg_pool2d(scored[None].float(), grid)[0] == 1
