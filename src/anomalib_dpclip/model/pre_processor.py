"""Pre-processing of images for CLIP: resize, clamp, normalisation, as the backbone was trained."""

from typing import Any

import torch
from anomalib.data import ImageBatch
from anomalib.pre_processing import PreProcessor
from lightning import LightningModule, Trainer
from torch import Tensor
from torchvision.transforms import v2

from anomalib_dpclip.clip.preprocessing import OPENAI, Interpolation, Preprocessing

CLIP_MEAN, CLIP_STD = OPENAI.mean, OPENAI.std


class Clamp(v2.Transform):
    """Put images back into [0, 1]: bicubic interpolation of float images overshoots, that of 8-bit ones cannot."""

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Clamp a float image; masks pass."""
        del params
        return inpt.clamp(0, 1) if inpt.is_floating_point() else inpt


class ExportableResize(v2.Transform):
    """What ``v2.Resize(size, interpolation, antialias=True)`` gives, as two matrix products.

    Runtimes do not agree on antialiased resizing (OpenVINO leaves the antialiasing out, and so does anomalib
    wherever it exports); they all multiply matrices alike.

    Args:
        size: Height and width of the result.
        interpolation: ``"bicubic"`` or ``"bilinear"``.
    """

    def __init__(self, size: tuple[int, int], interpolation: Interpolation = "bicubic") -> None:
        super().__init__()
        self.size = size
        self.weights = bicubic_weights if interpolation == "bicubic" else bilinear_weights

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Resize images ``(..., H, W)``."""
        del params
        if tuple(inpt.shape[-2:]) == self.size:
            return inpt
        rows, columns = (
            self.weights(torch.arange(length, dtype=inpt.dtype, device=inpt.device), target)
            for length, target in zip(inpt.shape[-2:], self.size, strict=True)
        )
        # Not `rows @ inpt @ columns.T`: OpenVINO would fuse the normalisation that follows into that product, along the
        # wrong axis, and refuse the file. It leaves a transposition alone.
        return (columns @ (rows @ inpt).transpose(-1, -2)).transpose(-1, -2)


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


class CLIPPreProcessor(PreProcessor):
    """Resize to the model's size (antialiased, no crop) and normalise with the backbone's mean and standard deviation.

    Args:
        image_size: Height and width of the model's input, in pixels.
        preprocessing: What the backbone was trained with. Default: OpenAI's.
    """

    def __init__(self, image_size: tuple[int, int], preprocessing: Preprocessing = OPENAI) -> None:
        super().__init__()
        self._set(image_size, preprocessing)

    def _set(self, image_size: tuple[int, int], preprocessing: Preprocessing) -> None:
        self.image_size, self.preprocessing = image_size, preprocessing
        mode = v2.InterpolationMode(preprocessing.interpolation)
        self.transform = self._transform(v2.Resize(list(image_size), mode, antialias=True))
        self.export_transform = self._transform(ExportableResize(image_size, preprocessing.interpolation))

    def use_preprocessing(self, preprocessing: Preprocessing) -> None:
        """Prepare images as other weights, or adapters, ask for."""
        self._set(self.image_size, preprocessing)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: ImageBatch, batch_idx: int) -> None:
        """Normalise only: images to learn from come in the backbone's size, augmented, also where larger ones are tiled."""
        del trainer, pl_module, batch_idx
        batch.image = self._normalize()(batch.image)

    def checkpoint_config(self) -> dict[str, Any]:
        """Size and statistics, from which all follows."""
        return {"image_size": list(self.image_size), **self.preprocessing.as_dict()}

    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        """Restore what `checkpoint_config` gave; earlier versions gave the size alone, the rest was OpenAI's."""
        height, width = config["image_size"]
        self._set((int(height), int(width)), Preprocessing.from_dict(config, "the checkpoint's pre-processor"))

    def _transform(self, resize: v2.Transform) -> v2.Transform:
        return v2.Compose([resize, Clamp(), self._normalize()])

    def _normalize(self) -> v2.Transform:
        return v2.Normalize(mean=list(self.preprocessing.mean), std=list(self.preprocessing.std))
