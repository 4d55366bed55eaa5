"""Which good images show what the target should look like: some of its training split, those of a folder, or given ones."""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from anomalib.data import AnomalibDataModule
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import to_dtype, to_image

from anomalib_dpclip.auxiliary.leakage import file_digest
from anomalib_dpclip.data.images import photo_size, read_image
from anomalib_dpclip.data.photo_files import photo_files
from anomalib_dpclip.data_sets.class_names import classes_of

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

ASPECT_TOLERANCE = 0.05
"""Relative difference of two aspects that a resize to the model's square does not show."""


class References:
    """The good images that the arguments name, or that were given.

    Args:
        k_shot: Number of images to take of the training split, or of the folder; 0 for none, or for the whole folder.
        source: Folder of good images.
        seed: Seed of the choice.
    """

    def __init__(self, k_shot: int, source: str | Path | None, seed: int) -> None:
        self.k_shot, self.source, self.seed = k_shot, source, seed
        self._given: list[Tensor] = []

    @property
    def are_named(self) -> bool:
        """Whether arguments name good images, or some were given."""
        return bool(self.k_shot or self.source is not None or self._given)

    @property
    def are_given(self) -> bool:
        """Whether the images were given, and not named by arguments."""
        return bool(self._given)

    def set(self, images: Sequence[str | Path | Image.Image | Tensor] | Tensor) -> None:
        """Take these images from now on, see `image_tensor`; none at all for those that the arguments name."""
        self._given = [image_tensor(image) for image in images]

    def paths(self, datamodule: AnomalibDataModule | None) -> list[str] | None:
        """Files of the good images that the arguments name; ``None`` where they name none.

        Raises:
            FileNotFoundError: If the folder is not there, or has no images.
            ValueError: If there are too few images, or the target has several classes.
        """
        if self._given or not self.are_named:
            return None
        if datamodule is not None and len(classes := classes_of(datamodule)) > 1:
            raise ValueError(f"good photos are of one class, and {datamodule.name} has {len(classes)}: test them one by one")
        if self.source is not None:
            return choose(_in_folder(Path(self.source)), self.k_shot, self.seed, str(self.source))
        if datamodule is None:
            raise ValueError(f"--model.k_shot {self.k_shot} takes photos of the training split: name the target with --data")
        samples = getattr(getattr(datamodule, "train_data", None), "samples", None)
        normal = [] if samples is None else list(samples.image_path[samples.label_index == 0])
        if not normal:
            raise ValueError(
                f"--model.k_shot {self.k_shot} takes normal images of the training split, and {datamodule.name} has none: give "
                f"a folder of good photos with --model.few_shot_source"
            )
        return choose(normal, self.k_shot, self.seed, f"the training split of {datamodule.name}")

    def images(self, paths: Sequence[str | Path] | None, datamodule: AnomalibDataModule | None) -> Iterator[Tensor]:
        """The good images ``(3, H, W)`` in [0, 1], in their own sizes, one after another.

        Of files as `paths` gives them, ``None`` for the images that were given. One of another aspect than the target's images,
        or the first one, is named in a warning; one that can't be read is an `ImageReadError`.
        """
        if paths is None:
            yield from self._given
            return
        samples = getattr(getattr(datamodule, "test_data", None), "samples", None)
        expected = None if samples is None or not len(samples) else photo_size(samples.image_path.iloc[0])
        for path in paths:
            image = read_image(path)
            expected = expected or image.size
            if is_squeezed(image.size, expected):
                logger.warning(
                    "the reference %s is %dx%d, another aspect than the images to score or the other references: it is "
                    "squeezed to their shape, and looks unlike them. Crop it",
                    *(path, *image.size),
                )
            yield image_tensor(image)

    def digest(self, datamodule: AnomalibDataModule | None) -> str:
        """Identifies the good images by what they show."""
        paths = self.paths(datamodule)
        given = (image.numpy().tobytes() for image in self._given)
        digest = hashlib.sha256()
        for part in given if paths is None else map(file_digest, paths):
            digest.update(part)
        return digest.hexdigest()


def _in_folder(folder: Path) -> list[str]:
    """Images of a folder, of which there must be some."""
    paths = list(photo_files(folder.resolve())) if folder.is_dir() else []
    if not paths:
        missing = "images in" if folder.is_dir() else "folder"
        raise FileNotFoundError(f"no {missing} {folder}: --model.few_shot_source must be the folder of the good photos")
    return paths


def choose(paths: Iterable[str | Path], k_shot: int, seed: int, place: str) -> list[str]:
    """Different images by chance, ``k_shot`` of them or all (0); a smaller choice is the beginning of a larger one."""
    found = list(drop_duplicates(sorted(map(str, paths))).values())
    if len(found) < k_shot:
        raise ValueError(f"--model.k_shot {k_shot} is more than the {len(found)} different normal photos in {place}")
    # Shuffled first and taken then, so that choices are nested.
    return shuffled(found, seed)[: k_shot or None]


def drop_duplicates(paths: Iterable[str]) -> dict[bytes, str]:
    """Paths without copies of earlier ones, by the digest of what they hold."""
    first: dict[bytes, str] = {}
    for path in paths:
        first.setdefault(file_digest(path), path)
    return first


def shuffled(items: Sequence[Item], seed: int) -> list[Item]:
    """Items by chance: the order in which good images are remembered."""
    # RandomState's numbers never change.
    return [items[index] for index in np.random.RandomState(seed).permutation(len(items))]


def image_tensor(image: str | Path | Image.Image | Tensor) -> Tensor:
    """An image ``(3, H, W)`` in [0, 1] of a file, of a PIL image, or as it is.

    Raises:
        ImageReadError: If a file cannot be read; names it.
        ValueError: If a tensor has another shape.
    """
    if isinstance(image, str | Path):
        image = read_image(image)
    if isinstance(image, Image.Image):
        return to_dtype(to_image(image.convert("RGB")), torch.float32, scale=True)
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"a reference must be an image (3, H, W) in [0, 1], not a tensor of shape {tuple(image.shape)}")
    return image.float()


def is_squeezed(size: tuple[int, int], expected: tuple[int, int]) -> bool:
    """Whether a photo of a width and height has another aspect than one of others, as the model's square shows."""
    return abs(size[0] * expected[1] / (size[1] * expected[0]) - 1) > ASPECT_TOLERANCE
