"""Images of a data set, looked at before a run: that all can be read, and would be read here as everywhere.

anomalib's own reader clips 16-bit values at 255, drops transparency and ignores the camera's orientation: a model that is
calibrated through one reader and predicts through the other would cut at a threshold of other pictures.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from multiprocessing.pool import ThreadPool
from typing import Any, TypeVar

import numpy as np
from anomalib import TaskType
from anomalib.data import AnomalibDataModule, AnomalibDataset, Folder, PredictDataset
from anomalib.data.datasets.image.folder import FolderDataset
from anomalib.data.utils import TestSplitMode
from anomalib.data.utils.image import read_image as host_image
from anomalib.data.utils.image import read_mask as host_mask
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_dpclip.data.images import ImageReadError, open_image, orientation_of, photo_size, read_image, read_mask
from anomalib_dpclip.data.json_lines import JSONLinesDataset
from anomalib_dpclip.data.labelled_sets import is_path, matching_masks
from anomalib_dpclip.data.photos import PhotosDataset

Found = TypeVar("Found")

SHOWN = 10
"""Faults that an error lists."""


def image_paths(dataset: Any) -> list[str]:
    """Images of a data set: of photos all, also those that have results already; none of what has no files."""
    if isinstance(dataset, PhotosDataset):
        return dataset.whole.paths
    if isinstance(dataset, PredictDataset):
        return [str(path) for path in dataset.image_filenames]
    return list(dataset.samples.image_path) if isinstance(dataset, AnomalibDataset) else []


def masked_images(dataset: Any) -> list[tuple[str, str]]:
    """Images of a data set that have a mask, each with its mask."""
    if not isinstance(dataset, AnomalibDataset) or dataset.task != TaskType.SEGMENTATION:
        return []
    anomalous = dataset.samples[dataset.samples.label_index == 1]
    pairs = zip(anomalous.image_path, anomalous.mask_path, strict=True)
    return [(image, mask) for image, mask in pairs if is_path(mask)]


def require_sound_images(dataset: Any) -> None:
    """Make sure that a run will not end at an image or a mask of its data set, and sees them as all others do.

    Only the beginnings of the files are read, unless they say that the two readers differ. Raises as `require_readable`, or
    names the first file that anomalib would read otherwise.
    """
    if isinstance(dataset, PhotosDataset):  # whose results name what could not be read, and the others are predicted
        return
    images, masked = image_paths(dataset), masked_images(dataset)
    require_readable(images, masked)
    if isinstance(dataset, JSONLinesDataset):
        return
    for paths, is_mask in ((images, False), ([mask for _, mask in masked], True)):
        for path, found in zip(paths, _each(partial(_difference, is_mask=is_mask), paths), strict=True):
            if found:
                raise ImageReadError(
                    f"{path} {found}, which anomalib's data sets read otherwise than predictions do, so thresholds would not "
                    f"hold: list the photos with `dpclip metadata FOLDER` and name that file with --data JSONLines, predict "
                    f"with --data Photos, or save it as an upright 8-bit image without transparency"
                )


def require_readable(images: Iterable[str], masked: Iterable[tuple[str, str]] = ()) -> None:
    """An ImageReadError of all images and masks that are missing or no images, and of masks of another size than theirs."""

    def size_or_fault(path: str) -> tuple[int, int] | str:
        try:
            return photo_size(path)
        except ImageReadError as error:
            return str(error)

    pairs = list(masked)
    paths = list(dict.fromkeys([*images, *(mask for _, mask in pairs)]))
    sizes = dict(zip(paths, _each(size_or_fault, paths), strict=True))
    faults = [size for size in sizes.values() if isinstance(size, str)]
    for image, mask in pairs:
        of_image, of_mask = sizes[image], sizes[mask]
        if isinstance(of_image, tuple) and isinstance(of_mask, tuple) and of_image != of_mask:
            faults.append("mask {} is {}x{}, but its image {} is {}x{}".format(mask, *of_mask, image, *of_image))
    if faults:
        more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        listed = "\n  ".join(faults[:SHOWN] + more)
        raise ImageReadError(f"{len(faults)} images or masks cannot be used, mend them or take them out:\n  {listed}")


def require_evaluation_images(target: AnomalibDataModule | None) -> None:
    """Before anomalib's `Folder` is set up: a ValueError for good photos alone, and where some anomalous images lack masks."""
    if not isinstance(target, Folder):
        return
    if target.test_split_mode == TestSplitMode.NONE and target.abnormal_dir is None and target.normal_test_dir is None:
        raise ValueError(
            f"{target.name} has good photos only and test_split_mode none, so there is nothing to validate, test or predict. "
            f"To score other photos by these: `dpclip predict --good {target.normal_dir} PHOTOS`, or --data Photos with "
            f"--model.few_shot_source; to test on synthetic defects: --data.test_split_mode synthetic"
        )
    if target.mask_dir is not None:
        advice = "list them with `dpclip metadata`, which takes photos of which only some have masks, and use --data JSONLines"
        folders = {name: getattr(target, name) for name in ("abnormal_dir", "normal_test_dir", "mask_dir", "extensions")}
        with matching_masks(f"the data set {target.name} in {target.root}", advice):
            FolderDataset(target.name, target.normal_dir, root=target.root, **folders)


def require_images(target: AnomalibDataModule | None, stage: str) -> None:
    """A ValueError if a data module that is set up has no image for Lightning's stage, which would then do nothing."""
    dataset = getattr(target, {"validate": "val_data", "test": "test_data", "predict": "test_data"}.get(stage, ""), None)
    if dataset is not None and len(dataset) == 0:
        raise ValueError(
            f"{target.name} has no image to {TrainerFn(stage).value}: let some be tested, and validate on them with "
            f"--data.val_split_mode same_as_test; to score photos by good ones use --data Photos with --model.few_shot_source, "
            f"or `dpclip predict --good`"
        )


def _difference(path: str, is_mask: bool) -> str | None:
    """What is read in two ways in a file; its pixels are only compared where its beginning gives cause."""
    with open_image(path) as image:
        if image.mode.startswith(("I", "F")):
            found = "has more than 8 bits"
        elif image.has_transparency_data:
            found = "is transparent"
        elif 1 < orientation_of(image, path) <= 8:
            found = "is turned by its EXIF orientation"
        elif is_mask and image.mode not in {"1", "L"}:
            found = "is a mask in dark colours"
        else:
            return None
    ours, theirs = (read_mask(path), host_mask(path) > 0) if is_mask else (np.asarray(read_image(path)) / 255, host_image(path))
    return None if np.array_equal(ours, theirs) else found


def _each(function: Callable[[str], Found], paths: Sequence[str]) -> Iterator[Found]:
    with ThreadPool() as pool:  # files may lie on a network
        yield from pool.imap(function, paths, chunksize=16)
