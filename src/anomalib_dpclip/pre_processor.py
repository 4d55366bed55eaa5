"""Pre-processing of images for CLIP: bicubic resize, clamp, normalisation."""

from typing import Any

from anomalib.pre_processing import PreProcessor
from anomalib.pre_processing.utils.transform import get_exportable_transform
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


class CLIPPreProcessor(PreProcessor):
    """Resize to the model's size (bicubic, antialiased, no crop) and normalise with CLIP's mean and standard deviation.

    Args:
        image_size: Height and width of the model's input, in pixels.
    """

    def __init__(self, image_size: tuple[int, int]) -> None:
        super().__init__(_transform(image_size))
        self.image_size = image_size

    def checkpoint_config(self) -> dict[str, Any]:
        """The size, from which all follows."""
        return {"image_size": list(self.image_size)}

    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        """Restore what `checkpoint_config` gave."""
        height, width = config["image_size"]
        self.image_size = (int(height), int(width))
        self.transform = _transform(self.image_size)
        self.export_transform = get_exportable_transform(self.transform)


def _transform(image_size: tuple[int, int]) -> v2.Transform:
    return v2.Compose(
        [
            v2.Resize(list(image_size), interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            Clamp(),
            v2.Normalize(mean=list(CLIP_MEAN), std=list(CLIP_STD)),
        ]
    )
