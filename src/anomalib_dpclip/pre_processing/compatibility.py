"""What a pre-processor of one's own must do: show the model whole images, of its size, normalised as the backbone was trained.

Whatever transforms it is made of, it is tried on plain images and ramps. A crop, a padding or a flip would put maps and boxes
elsewhere than the defect, and without the normalisation scores would be of other images than the backbone knows.
"""

from typing import Any

import torch
from torch import Tensor

from anomalib_dpclip.clip.preprocessing import Preprocessing

PROBE = 97
"""Height and width of the images that it is tried on are so many pixels more than the model's."""

TOLERANCE = 0.02
"""What normalised grey levels may be off by: 8-bit values are off by 0.008 at most."""


def require_whole_images(pre_processor: Any, image_size: tuple[int, int], preprocessing: Preprocessing) -> None:
    """Refuse a pre-processor whose transform, if any, gives images of another size, statistics or geometry."""
    transform = getattr(pre_processor, "transform", None)
    if transform is None:
        return
    height, width = (side + PROBE for side in image_size)
    black, white = (transform(torch.full((1, 3, height, width), level)) for level in (0.0, 1.0))
    size = tuple(black.shape[-2:])
    if size != image_size:
        raise ValueError(f"pre_processor gives images of {size}, the model takes {image_size}: resize, or set image_size")
    mean, std = map(torch.tensor, (preprocessing.mean, preprocessing.std))
    centre = (0, slice(None), image_size[0] // 2, image_size[1] // 2)
    if max((black[centre] + mean / std).abs().max(), (white[centre] - (1 - mean) / std).abs().max()) > TOLERANCE:
        raise ValueError(
            f"pre_processor does not normalise as the backbone was trained: end it with Normalize(mean={preprocessing.mean}, "
            f"std={preprocessing.std}), or say other values with image_mean and image_std"
        )
    for axis, (before, after) in enumerate(zip((height, width), image_size, strict=True), start=2):
        shown = (transform(_ramp(before, axis).expand(1, 3, height, width)) - black) / (white - black)
        if not ((shown - _ramp(after, axis)).abs() <= 1 / after + TOLERANCE).all():  # what is padded is NaN
            raise ValueError(
                "pre_processor shows the model something else than the whole image, so that maps and boxes would lie elsewhere "
                "than the defect: leave crops, paddings and flips out, and resize to both height and width"
            )


def require_same_resize(pre_processor: Any, image_size: tuple[int, int]) -> None:
    """Refuse a pre-processor whose exported transform gives other images: anomalib leaves antialiasing out of exports."""
    transform, exported = (getattr(pre_processor, f"{kind}transform", None) for kind in ("", "export_"))
    if transform is None or exported is None:
        return
    noise = torch.rand(1, 3, *image_size, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255
    if (transform(noise) - exported(noise)).abs().max() > TOLERANCE * 3:
        raise ValueError(
            "pre_processor resizes images otherwise in an exported file, without antialiasing: leave it out, or export with "
            "input_size, the model's own, and resize images before"
        )


def _ramp(length: int, axis: int) -> Tensor:
    """Grey levels that rise from 0 to 1 along an axis, ``(1, 1, L, 1)`` or ``(1, 1, 1, L)``."""
    levels = (torch.arange(length) + 0.5) / length
    return levels.view(1, 1, -1, 1) if axis == 2 else levels.view(1, 1, 1, -1)
