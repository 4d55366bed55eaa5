"""Pre-processing of images for CLIP: bicubic resize of 8-bit values, normalisation."""

from typing import Any

from anomalib.data import ImageBatch
from anomalib.pre_processing import PreProcessor
from lightning import LightningModule, Trainer
from torch import Tensor
from torchvision.transforms import v2

from anomalib_dpclip.model.resize import EightBitResize, ExportableResize

# CLIP's own statistics, as open_clip.constants has them; importing open_clip for six numbers would cost a second.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class Clamp(v2.Transform):
    """Put images back into [0, 1] that augmentations have led astray, those of the model's size too."""

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Clamp a float image; masks pass."""
        del params
        return inpt.clamp(0, 1) if inpt.is_floating_point() else inpt


class CLIPPreProcessor(PreProcessor):
    """Resize to the model's size (8 bits, bicubic, antialiased; no crop) and normalise with CLIP's mean and standard deviation.

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
    return v2.Compose([EightBitResize(image_size), Clamp()])


def normalize() -> v2.Transform:
    """CLIP's normalisation of images in [0, 1]."""
    return v2.Normalize(mean=list(CLIP_MEAN), std=list(CLIP_STD))
