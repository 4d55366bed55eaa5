"""Training augmentation of the method, on image and mask together, with torchvision's transforms."""

from collections.abc import Sequence

from torchvision.transforms import v2
from torchvision.tv_tensors import Image as ImageTensor
from torchvision.tv_tensors import Mask


def colour_jitter() -> v2.Transform:
    """Brightness, contrast and saturation, each by up to 50 % with probability 0.7; on the image before its resize."""
    return v2.Compose(
        [
            v2.RandomApply([v2.ColorJitter(brightness=0.5)], p=0.7),
            v2.RandomApply([v2.ColorJitter(contrast=0.5)], p=0.7),
            v2.RandomApply([v2.ColorJitter(saturation=0.5)], p=0.7),
        ]
    )


def geometric(fill: Sequence[float]) -> v2.Transform:
    """Rotation by up to 30 degrees, translation by up to 15 %, both flips, each with probability 0.5; nearest sampling.

    Args:
        fill: Colour of uncovered image pixels; uncovered mask pixels are 0. The method uses CLIP's mean colour, which is 0
            in the normalised image.
    """
    fills = {ImageTensor: list(fill), Mask: 0}
    return v2.Compose(
        [
            v2.RandomApply([v2.RandomRotation(30, fill=fills)], p=0.5),
            v2.RandomApply([v2.RandomAffine(0, translate=(0.15, 0.15), fill=fills)], p=0.5),
            v2.RandomHorizontalFlip(0.5),
            v2.RandomVerticalFlip(0.5),
        ]
    )
