"""Corrupted test images, by torchvision: what ageing lamps, compression and loose mountings do to a camera's pictures."""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.tv_tensors import Image, Mask


def _images_to(dtype: torch.dtype) -> v2.Transform:
    """Images in another type, in its range; masks as they are."""
    return v2.ToDtype({Image: dtype, "others": None}, scale=True)


def _moved(picture: Tensor, share: float) -> Tensor:
    """An image ``(C, H, W)`` or mask ``(H, W)`` moved right and down; what comes into view is mirrored."""
    height, width = picture.shape[-2:]
    pixels = round(share * min(height, width))
    padded = v2.functional.pad(picture, [pixels, pixels, 0, 0], padding_mode="reflect")
    return v2.functional.crop(padded, 0, 0, height, width)


CORRUPTIONS: dict[str, tuple[Callable[[float], v2.Transform], tuple[float, float, float], str]] = {
    "light": (lambda factor: v2.ColorJitter(brightness=(factor, factor)), (0.9, 0.75, 0.5), "brightness, of 1"),
    "jpeg": (
        lambda quality: v2.Compose([_images_to(torch.uint8), v2.JPEG(int(quality)), _images_to(torch.float32)]),
        (50, 25, 10),
        "quality, of 100",
    ),
    "blur": (lambda sigma: v2.GaussianBlur(2 * round(3 * sigma) + 1, sigma), (1.0, 2.0, 4.0), "standard deviation in pixels"),
    "noise": (lambda sigma: v2.GaussianNoise(0.0, sigma), (0.02, 0.05, 0.10), "standard deviation, of 1"),
    "move": (
        lambda share: v2.Lambda(partial(_moved, share=share), Image, Mask),
        (0.02, 0.05, 0.10),
        "share of the shorter side",
    ),
}
"""Transform, its strengths from weak to strong, and what they are, of each corruption."""


def chosen_corruptions(names: str | Iterable[str] | None) -> tuple[str, ...]:
    """Corruptions by their names, a list or with commas between.

    Raises:
        ValueError: There is no such corruption.

    Example:
        >>> chosen_corruptions("light,move")
        ('light', 'move')
    """
    words = names.split(",") if isinstance(names, str) else [*(names or ())]
    chosen = tuple(word.strip() for word in words)
    unknown = [name for name in chosen if name not in CORRUPTIONS]
    if unknown:
        raise ValueError(f"shift: there is no corruption {unknown[0]!r}; there are {', '.join(CORRUPTIONS)}")
    return chosen


def corrupted(name: str, strength: float, before: v2.Transform | None) -> v2.Transform:
    """A corruption of a strength, and after it a data module's own test augmentation, if it has one."""
    corruption = CORRUPTIONS[name][0](strength)
    return v2.Compose([corruption] if before is None else [corruption, before])
