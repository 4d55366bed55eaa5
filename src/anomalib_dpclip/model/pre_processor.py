"""Pre-processing of images for CLIP: bicubic resize, clamp, normalisation."""

from typing import Any

import torch
from anomalib.data import ImageBatch
from anomalib.pre_processing import PreProcessor
from lightning import LightningModule, Trainer
from torch import Tensor
from torchvision.transforms import v2

# CLIP's own statistics, as open_clip.constants has them; importing open_clip for six numbers would cost a second.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class Clamp(v2.Transform):
    """Put images back into [0, 1]: bicubic interpolation of float images overshoots, that of 8-bit ones cannot."""

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Clamp a float image; masks pass."""
        del params
        return inpt.clamp(0, 1) if inpt.is_floating_point() else inpt


class ExportableResize(v2.Transform):
    """What ``v2.Resize(size, BICUBIC, antialias=True)`` gives, as two matrix products.

    Runtimes do not agree on antialiased bicubic resizing (OpenVINO leaves the antialiasing out, and so does anomalib
    wherever it exports); they all multiply matrices alike.

    Args:
        size: Height and width of the result.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Resize images ``(..., H, W)``."""
        del params
        if tuple(inpt.shape[-2:]) == self.size:
            return inpt
        rows, columns = (
            bicubic_weights(torch.arange(length, dtype=inpt.dtype, device=inpt.device), target)
            for length, target in zip(inpt.shape[-2:], self.size, strict=True)
        )
        return rows @ inpt @ columns.T


def bicubic_weights(positions: Tensor, target: int) -> Tensor:
    """Share of each pixel of a line in each pixel of the resized line, as PIL and torch interpolate with antialiasing.

    The kernel is Keys' cubic convolution with a = -0.5 (1981), stretched by the factor by which the line shrinks.

    Args:
        positions: ``0, 1, ..., L - 1`` for a line of ``L`` pixels. A tensor, for ``L`` is only known where an exported
            model runs.
        target: Pixels of the resized line.

    Returns:
        Weights ``(target, L)``, whose rows sum to 1.
    """
    scale = (positions[-1] + 1) / target
    centers = (torch.arange(target, dtype=positions.dtype, device=positions.device) + 0.5) * scale
    distance = ((positions + 0.5 - centers.unsqueeze(1)) / scale.clamp(min=1)).abs()
    near = (1.5 * distance - 2.5) * distance.square() + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = torch.where(distance < 1, near, torch.where(distance < 2, far, 0))
    return weights / weights.sum(dim=1, keepdim=True)


class CLIPPreProcessor(PreProcessor):
    """Resize to the model's size (bicubic, antialiased, no crop) and normalise with CLIP's mean and standard deviation.

    Args:
        image_size: Height and width of the model's input, in pixels.
    """

    def __init__(self, image_size: tuple[int, int]) -> None:
        super().__init__()
        self._set_size(image_size)

    def _set_size(self, image_size: tuple[int, int]) -> None:
        self.image_size = image_size
        self.transform = v2.Compose([*resize_only(image_size).transforms, normalize()])
        self.export_transform = v2.Compose([ExportableResize(image_size), Clamp(), normalize()])

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: ImageBatch, batch_idx: int) -> None:
        """Normalise only: images to learn from come in the backbone's size, augmented, also where larger ones are tiled."""
        del trainer, pl_module, batch_idx
        batch.image = normalize()(batch.image)

    def checkpoint_config(self) -> dict[str, Any]:
        """The size, from which all follows."""
        return {"image_size": list(self.image_size)}

    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        """Restore what `checkpoint_config` gave."""
        height, width = config["image_size"]
        self._set_size((int(height), int(width)))


def resize_only(image_size: tuple[int, int]) -> v2.Transform:
    """The resize of `CLIPPreProcessor` without the normalisation: images stay in [0, 1]."""
    return v2.Compose([v2.Resize(list(image_size), v2.InterpolationMode.BICUBIC, antialias=True), Clamp()])


def normalize() -> v2.Transform:
    """CLIP's normalisation of images in [0, 1]."""
    return v2.Normalize(mean=list(CLIP_MEAN), std=list(CLIP_STD))
