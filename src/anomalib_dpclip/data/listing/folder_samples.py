"""Labelled images of plain folders, as the rows of a metadata file.

Two layouts are understood, at the root itself or in one folder for each category::

    good/ scratch/ hole/        normal images, and a folder for each kind of defect (also inside test/, as in MVTec AD)
    masks/scratch/ masks/hole/  masks, if there are any; without folders of their own if there is one kind of defect
    train/good/                 normal training images, if there are any

    images/ masks/              anomalous images and a mask for each, as in the polyp sets

The folder of masks may also be called ``ground_truth`` or ``mask``. A mask has the name of its image, whatever the
extension, or that and ``_mask``.
"""

from pathlib import Path

import pandas as pd

from anomalib_dpclip.data.listing.metadata import Sample, to_frame

MASK_FOLDERS = ("masks", "ground_truth", "mask")
_EXTENSIONS = {".jpg", ".jpeg", ".jp2", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif"}


def folder_samples(root: Path, class_name: str | None = None) -> pd.DataFrame:
    """List the images of a folder of one category, or of several, as `to_frame` does; by default they show the folder's name.

    A FileNotFoundError if there is no such folder, or no category in it; a ValueError if a mask matches no image.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}: root must be the folder that the images are in")
    categories = [root] if _is_category(root) else [folder for folder in _folders(root) if _is_category(folder)]
    if not categories:
        raise FileNotFoundError(
            f"neither {root} nor a folder in it has good/ (normal images, beside a folder for each kind of defect), or "
            f"images/ and masks/"
        )
    samples = [sample for folder in categories for sample in _category_samples(folder, class_name or folder.resolve().name)]
    if not samples:
        raise FileNotFoundError(f"no image in the folders of {root}: {', '.join(sorted(_EXTENSIONS))} are known")
    return to_frame(samples)


def _category_samples(folder: Path, class_name: str) -> list[Sample]:
    tested = folder / "test" if (folder / "test").is_dir() and not (folder / "images").is_dir() else folder
    masks = next((folder / name for name in MASK_FOLDERS if (folder / name).is_dir()), None)
    samples = [Sample(str(image), 0, class_name, split="train") for image in _images(folder / "train" / "good")]
    samples += [Sample(str(image), 0, class_name) for image in _images(tested / "good")]
    polyps, others = folder / "images", {"good", "train", *MASK_FOLDERS}
    kinds = [polyps] if polyps.is_dir() else [path for path in _folders(tested) if path.name not in others]
    for kind in kinds:
        of_kind = (_images(masks / kind.name) or (_images(masks) if len(kinds) == 1 else [])) if masks else []
        by_name = {mask.stem: str(mask) for mask in of_kind}
        for image in _images(kind):
            mask = by_name.get(image.stem) or by_name.get(f"{image.stem}_mask")
            if mask is None and kind == polyps:
                raise ValueError(f"{image} has no mask in {folder / 'masks'}: put normal images into {folder / 'good'}")
            samples.append(Sample(str(image), 1, class_name, mask))
    all_masks = {path for path in masks.rglob("*") if _is_image(path) and path.parent.name != "good"} if masks else set()
    misnamed = sorted(all_masks - {Path(sample.mask_path) for sample in samples if sample.mask_path})
    if misnamed:
        raise ValueError(
            f"{len(misnamed)} masks match no image, the first is {misnamed[0]}: the mask of scratch/001.jpg is "
            f"masks/scratch/001.png or masks/scratch/001_mask.png"
        )
    return samples


def _is_category(folder: Path) -> bool:
    return any((folder / name).is_dir() for name in ("good", "images", "test", "train"))


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _is_image(path)) if folder.is_dir() else []


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _EXTENSIONS and not path.name.startswith(".") and path.is_file()
