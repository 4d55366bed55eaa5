"""Which photos show what the target should look like: some of its training split, or those of a folder."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from anomalib.data import AnomalibDataModule
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import Transform
from torchvision.transforms.v2.functional import to_dtype, to_image

from anomalib_dpclip.auxiliary.leakage import file_digest, find_test_duplicate
from anomalib_dpclip.data.images import photo_size, read_image
from anomalib_dpclip.data.photo_files import photo_files
from anomalib_dpclip.method.class_names import classes_of

logger = logging.getLogger(__name__)

Photo = TypeVar("Photo")

ASPECT_TOLERANCE = 0.05
"""Relative difference of two aspects that a resize to the model's square does not show."""


def check_references(k_shot: int, few_shot_source: str | Path | None, memory_tokens: int, lot: bool, tiles: int) -> None:
    """Check the arguments of `DPCLIP` that are about photos of the target and about its lot.

    Raises:
        ValueError: If one is out of range, or they do not go together.
    """
    if k_shot < 0:
        raise ValueError(f"k_shot must be at least 0, not {k_shot}: it is the number of photos of the target")
    if memory_tokens <= 0:
        raise ValueError(f"memory_tokens must be positive, not {memory_tokens}")
    if tiles > 1 and (lot or k_shot or few_shot_source is not None):
        raise ValueError("k_shot, few_shot_source and lot judge whole images: set --model.tiles 1")


def training_references(target: AnomalibDataModule | None, k_shot: int, seed: int) -> list[str]:
    """Normal images of a target's training split, by chance: neighbours in a folder are often photos of one part.

    Args:
        target: A data module that has been set up.
        k_shot: How many. Fewer of them are the first of more.
        seed: Of the choice.

    Raises:
        ValueError: If there is no training split, too few normal images in it, or several classes.
    """
    if target is None:
        raise ValueError(f"--model.k_shot {k_shot} takes photos of the target's training split: name the target with --data")
    classes = classes_of(target)
    if len(classes) > 1:
        raise ValueError(f"--model.k_shot takes photos of one class, {target.name} has {len(classes)}: test them one by one")
    samples = getattr(getattr(target, "train_data", None), "samples", None)
    normal = [] if samples is None else list(samples.image_path[samples.label_index == 0])
    if not normal:
        raise ValueError(
            f"--model.k_shot {k_shot} takes normal images of the training split, and {target.name} has none: give a folder of "
            f"good photos with --model.few_shot_source"
        )
    return choose(normal, k_shot, seed, f"the training split of {target.name}")


def folder_references(folder: str | Path, k_shot: int, seed: int) -> list[str]:
    """Photos of a folder, all of them or ``k_shot`` by chance.

    Raises:
        FileNotFoundError: If there is no such folder, or no image in it.
        ValueError: If there are fewer than ``k_shot``.
    """
    source = Path(folder)
    if not source.is_dir():
        raise FileNotFoundError(f"no folder {source}: --model.few_shot_source must be the folder of the good photos")
    paths = list(photo_files(source.resolve()))
    if not paths:
        raise FileNotFoundError(f"no images in {source}: --model.few_shot_source must be the folder of the good photos")
    return choose(paths, k_shot, seed, str(source))


def choose(paths: Iterable[str | Path], k_shot: int, seed: int, place: str) -> list[str]:
    """Different photos by chance, ``k_shot`` of them or all (0); a smaller choice is the beginning of a larger one.

    Raises:
        ValueError: If there are fewer than ``k_shot`` different ones.
    """
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


def shuffled(photos: Sequence[Photo], seed: int) -> list[Photo]:
    """Photos by chance: the order in which they are remembered, and given synthetic defects."""
    # RandomState's numbers never change.
    return [photos[index] for index in np.random.RandomState(seed).permutation(len(photos))]


def require_untested(references: Sequence[str], target: AnomalibDataModule | None) -> None:
    """Make sure that no reference is tested on, under the same path or as a copy.

    Raises:
        ValueError: Names the photo in both places.
    """
    twins = find_test_duplicate(references, target)
    if twins is not None:
        tested, reference = twins
        raise ValueError(
            f"{tested} is to be tested on and, as {reference}, a photo of what the target should look like: it would be "
            f"compared with itself. Choose other photos with --model.few_shot_source"
        )


def read_references(paths: Sequence[str | Path], target: AnomalibDataModule | None = None) -> list[Tensor]:
    """Images ``(3, H, W)`` in [0, 1] of files, in their own size; a photo of another aspect is told of.

    Raises:
        ImageReadError: If one cannot be read; names the file.
    """
    images = [read_image(path) for path in paths]
    expected = _size_of(target) or images[0].size
    for path, image in zip(paths, images, strict=True):
        if is_squeezed(image.size, expected):
            logger.warning(
                "the reference %s is %dx%d, another aspect than the images to judge or the other references: it is squeezed "
                "to their shape, and looks unlike them. Crop it",
                path,
                *image.size,
            )
    return [as_tensor(image) for image in images]


def as_tensor(image: Image.Image) -> Tensor:
    """An 8-bit RGB image as ``(3, H, W)`` in [0, 1]."""
    return to_dtype(to_image(image), torch.float32, scale=True)


def resized(images: Sequence[Tensor], pre_processor: Transform) -> Tensor:
    """Images of any size, made ready for the model: ``(K, 3, H, W)``."""
    return torch.stack([pre_processor(image) for image in images])


def is_squeezed(size: tuple[int, int], expected: tuple[int, int]) -> bool:
    """Whether a photo of a width and height has another aspect than one of others, as the model's square shows."""
    return abs(size[0] * expected[1] / (size[1] * expected[0]) - 1) > ASPECT_TOLERANCE


def _size_of(target: AnomalibDataModule | None) -> tuple[int, int] | None:
    samples = getattr(getattr(target, "test_data", None), "samples", None)
    return None if samples is None or not len(samples) else photo_size(samples.image_path.iloc[0])
