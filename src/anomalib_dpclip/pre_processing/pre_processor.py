"""Pre-processing of images for CLIP: resize of 8-bit values, and normalisation, as the backbone was trained."""

from typing import Any

import torch
from anomalib.data import ImageBatch
from anomalib.pre_processing import PreProcessor
from lightning import LightningModule, Trainer
from torch import Tensor
from torchvision.transforms import v2
from torchvision.tv_tensors import Mask

from anomalib_dpclip.clip.preprocessing import OPENAI, Preprocessing
from anomalib_dpclip.pre_processing.compatibility import require_whole_images
from anomalib_dpclip.pre_processing.resize import EightBitResize, ExportableResize


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
