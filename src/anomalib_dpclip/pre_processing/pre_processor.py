"""Pre-processing of images for CLIP, resize of 8-bit values and normalisation as it was trained; and what others must do.

A pre-processor of a user's own must show the model whole images, of its size, normalised as the backbone was trained. Whatever
transforms it is made of, it is tried on plain images and ramps: a crop, a padding or a flip would put maps and boxes elsewhere
than the defect, and without the normalisation scores would be of other images than the backbone knows.
"""

from typing import Any

import torch
from anomalib.data import ImageBatch
from anomalib.pre_processing import PreProcessor
from lightning import LightningModule, Trainer
from torch import Tensor
from torchvision.transforms import v2
from torchvision.tv_tensors import Mask

from anomalib_dpclip.clip.pretraining import OPENAI, Preprocessing
from anomalib_dpclip.pre_processing.resize import EightBitResize, ExportableResize

PROBE = 97
"""Height and width of the images that it is tried on are so many pixels more than the model's."""

TOLERANCE = 0.02
"""What normalised grey levels may be off by: 8-bit values are off by 0.008 at most."""


class Clamp(v2.Transform):
    """Put images back into [0, 1] that augmentations have led astray, those of the model's size too; masks pass."""

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Clamp a float image."""
        del params
        return inpt.clamp(0, 1) if inpt.is_floating_point() else inpt


class Normalize(v2.Transform):
    """Subtract a mean and divide by a standard deviation, both of which wait where the model is; masks pass.

    torchvision's own has them as numbers, and the processor waits for an accelerator while they are copied there, in each step.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(-1, 1, 1), persistent=False)

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Normalise images ``(..., 3, H, W)``."""
        del params
        return inpt if isinstance(inpt, Mask) else (inpt - self.mean.to(inpt)) / self.std.to(inpt)


class CLIPPreProcessor(PreProcessor):
    """Resize to the model's height and width (8 bits, antialiased, no crop) and normalise as the backbone was trained."""

    def __init__(self, image_size: tuple[int, int], preprocessing: Preprocessing = OPENAI) -> None:
        super().__init__()
        self.configure(image_size, preprocessing)

    def configure(self, image_size: tuple[int, int], preprocessing: Preprocessing) -> None:
        """Prepare images of another size, or for other weights."""
        self.image_size, self.preprocessing = image_size, preprocessing
        self.normalize = Normalize(preprocessing)
        exportable = ExportableResize(image_size, preprocessing.interpolation)
        self.transform = v2.Compose([*self.resize_only.transforms, self.normalize])
        self.export_transform = v2.Compose([exportable, Clamp(), self.normalize])

    @property
    def resize_only(self) -> v2.Compose:
        """The resize without the normalisation: images stay in [0, 1]."""
        return v2.Compose([EightBitResize(self.image_size, self.preprocessing.interpolation), Clamp()])

    def use_preprocessing(self, preprocessing: Preprocessing) -> None:
        """Prepare images as other weights, or adapters, ask for."""
        self.configure(self.image_size, preprocessing)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: ImageBatch, batch_idx: int) -> None:
        """Normalise only: images to learn from come in the backbone's size, augmented, also where larger ones are tiled."""
        del trainer, pl_module, batch_idx
        batch.image = self.normalize(batch.image)

    def checkpoint_config(self) -> dict[str, Any]:
        """Size and statistics, from which all follows."""
        return {"image_size": list(self.image_size), **self.preprocessing.as_dict()}

    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        """Restore what `checkpoint_config` gave, or anomalib's own of the transforms that a user has put in their place."""
        if "image_size" in config:
            height, width = config["image_size"]
            self.configure((int(height), int(width)), Preprocessing.from_dict(config, "the checkpoint's pre-processor"))
            return
        super().load_checkpoint_config(config)
        if self.transform is None:
            raise ValueError("the checkpoint has another pre-processor, which anomalib could not keep: give the same one again")
        require_whole_images(self, self.image_size, self.preprocessing)


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
