"""Resizing as the method does it: bicubic, antialiased, on 8-bit values, as Pillow resizes photographs.

Pillow resizes along one axis and then the other, and rounds and clips to 8 bits after each. On sharp texture that gives other
pixels than a resize of floating-point values, a fifth of them and up to 22/255 away; the method's adapters know Pillow's. The
rows come first, as in the Pillow that they were trained with: version 13 begins with the columns where an image is taller than
wide, which again gives other pixels.
"""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.tv_tensors import Mask, wrap

from anomalib_dpclip.clip.pretraining import Interpolation
from anomalib_dpclip.files.precision import full_precision


class EightBitResize(v2.Resize):
    """Pillow's antialiased resize, of tensors in [0, 1] too: those of anomalib's data modules were 8-bit files.

    A kind of torchvision's resize, so that anomalib finds it and has it done before images are put together as a batch.
    ``"bicubic"`` is the method's interpolation, ``"bilinear"`` that of some backbones.

    Attributes:
        is_eight_bit: That 8-bit images give the same values, whether they become floating-point ones before or after it.
    """

    is_eight_bit = True

    def __init__(self, size: tuple[int, int], interpolation: Interpolation = "bicubic") -> None:
        super().__init__(list(size), v2.InterpolationMode(interpolation), antialias=True)
        self.pillow = Image.Resampling[interpolation.upper()]

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resize images ``(..., H, W)``, floating point in [0, 1] or 8-bit; masks to the nearest pixel."""
        if not isinstance(inpt, Tensor) or isinstance(inpt, Mask) or list(inpt.shape[-2:]) == self.size:
            return super().transform(inpt, params)
        height, width = self.size
        resized = inpt.new_empty((*inpt.shape[:-2], height, width)).as_subclass(Tensor)
        # Channel by channel: Pillow wants colours last, which would cost a copy of the whole image.
        planes = zip(inpt.as_subclass(Tensor).flatten(0, -3), resized.view(-1, height, width), strict=True)
        for before, after in planes:
            values = before if before.dtype == torch.uint8 else _to_eight_bits(before * 255).byte()
            image = Image.fromarray(values.cpu().numpy())
            # Two calls, so that no version of Pillow chooses their order.
            narrow = image.resize((width, image.height), self.pillow)
            after.copy_(torch.from_numpy(np.array(narrow.resize((width, height), self.pillow))))
        return wrap(resized / 255 if resized.is_floating_point() else resized, like=inpt)


class ExportableResize(v2.Transform):
    """The same for runtimes that have no Pillow: two matrix products, rounded and clipped after each.

    Runtimes do not agree on antialiased bicubic resizing (OpenVINO leaves the antialiasing out, and so does anomalib
    wherever it exports); they all multiply matrices alike. Pillow's weights are fixed-point numbers, so that now and then a
    value is rounded the other way.
    """

    def __init__(self, size: tuple[int, int], interpolation: Interpolation = "bicubic") -> None:
        super().__init__()
        self.size = size
        self.weights = bicubic_weights if interpolation == "bicubic" else bilinear_weights

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Resize images ``(..., H, W)`` in [0, 1]."""
        del params
        if tuple(inpt.shape[-2:]) == self.size:
            return inpt
        rows, columns = _weights_of(inpt, self.size, self.weights)
        narrow = _to_eight_bits(_to_eight_bits(inpt * 255) @ columns.T)
        return _to_eight_bits(rows @ narrow) / 255


def resize_bilinear(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize images or feature maps ``(..., H, W)`` with antialiasing, by two matrix products, see `ExportableResize`."""
    if tuple(images.shape[-2:]) == size:
        return images
    rows, columns = _weights_of(images, size, bilinear_weights)
    with full_precision(images):
        return rows @ (images @ columns.T)


def _weights_of(images: Tensor, size: tuple[int, int], weights: Any) -> list[Tensor]:
    """Weights of rows ``(height, H)`` and of columns ``(width, W)``."""
    lines = [torch.arange(length, dtype=images.dtype, device=images.device) for length in images.shape[-2:]]
    return [weights(positions, target) for positions, target in zip(lines, size, strict=True)]


def bicubic_weights(positions: Tensor, target: int) -> Tensor:
    """Share of each pixel of a line in each of the `target` pixels of the resized line ``(target, L)``, whose rows sum to 1.

    As PIL and torch interpolate with antialiasing: Keys' cubic convolution with a = -0.5 (1981), stretched by the factor by
    which the line shrinks. `positions` are ``0, ..., L - 1``, a tensor, for ``L`` is only known where an exported model runs.
    """
    distance = _distances(positions, target)
    near = (1.5 * distance - 2.5) * distance.square() + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = torch.where(distance < 1, near, torch.where(distance < 2, far, 0))
    return weights / weights.sum(dim=1, keepdim=True)


def bilinear_weights(positions: Tensor, target: int) -> Tensor:
    """`bicubic_weights` with the triangle as kernel."""
    weights = (1 - _distances(positions, target)).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)


def _distances(positions: Tensor, target: int) -> Tensor:
    """From the centre of each resized pixel to each pixel ``(target, L)``, in units of the kernel."""
    scale = (positions[-1] + 1) / target
    centers = (torch.arange(target, dtype=positions.dtype, device=positions.device) + 0.5) * scale
    return ((positions + 0.5 - centers.unsqueeze(1)) / scale.clamp(min=1)).abs()


def _to_eight_bits(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255)
