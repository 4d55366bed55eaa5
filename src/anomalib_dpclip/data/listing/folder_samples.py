"""Labelled images of plain folders, as the rows of a metadata file.

Two layouts are understood, at the root itself or in one folder for each category::

    good/ scratch/ hole/        normal images, and a folder for each kind of defect (also inside test/, as in MVTec AD)
    masks/scratch/ masks/hole/  masks, if there are any; without folders of their own if there is one kind of defect
    train/good/                 normal training images, if there are any

    images/ masks/              anomalous images and a mask for each, as in the polyp sets

The folder of masks may also be called ``ground_truth`` or ``mask``. A mask has the name of its image, whatever the
extension, or that and ``_mask``.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from anomalib_dpclip.data.listing.metadata import Sample, to_frame

MASK_FOLDERS = ("masks", "ground_truth", "mask")
_EXTENSIONS = {".jpg", ".jpeg", ".jp2", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif"}


def folder_samples(root: str | Path, class_name: str | None = None) -> pd.DataFrame:
    """List the images of folders in one of the layouts above.

    Args:
        root: Folder of one category, or of several.
        class_name: What the images show; by default the name of the category's folder.

    Returns:
        Rows as `anomalib_dpclip.data.listing.metadata.to_frame` describes them.

    Raises:
        FileNotFoundError: If there is no such folder, or no category in it.
        ValueError: If a mask matches no image.
    """
    top = Path(root)
    if not top.is_dir():
        raise FileNotFoundError(f"no folder {root}: root must be the folder that the images are in")
    categories = [top] if _is_category(top) else [folder for folder in _folders(top) if _is_category(folder)]
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
    samples = [Sample(str(image), 0, class_name, split="train") for image in _images(folder / "train" / "good")]
    samples += [Sample(str(image), 0, class_name) for image in _images(tested / "good")]
    samples += _anomalous_samples(folder, tested, class_name)
    _require_used(_masks_folder(folder), {sample.mask_path for sample in samples})
    return samples


def _anomalous_samples(folder: Path, tested: Path, class_name: str) -> Iterator[Sample]:
    """Samples of the kinds of defect.

    Raises:
        ValueError: If an image of ``images/`` has no mask.
    """
    polyps = folder / "images"
    others = {"good", "train", *MASK_FOLDERS}
    kinds = [polyps] if polyps.is_dir() else [path for path in _folders(tested) if path.name not in others]
    for kind in kinds:
        masks = _masks(_masks_folder(folder), kind.name, is_only_kind=len(kinds) == 1)
        for image in _images(kind):
            mask = masks.get(image.stem) or masks.get(f"{image.stem}_mask")
            if mask is None and kind == polyps:
                raise ValueError(f"{image} has no mask in {folder / 'masks'}: put normal images into {folder / 'good'}")
            yield Sample(str(image), 1, class_name, str(mask) if mask else None)


def _masks_folder(folder: Path) -> Path | None:
    return next((folder / name for name in MASK_FOLDERS if (folder / name).is_dir()), None)


def _masks(folder: Path | None, kind: str, is_only_kind: bool) -> dict[str, Path]:
    """Masks of a kind of defect, by their names without extension."""
    if folder is None:
        return {}
    masks = _images(folder / kind) or (_images(folder) if is_only_kind else [])
    return {mask.stem: mask for mask in masks}


def _require_used(folder: Path | None, used: Iterable[str | None]) -> None:
    """Make sure that each mask belongs to an image.

    Raises:
        ValueError: If one does not.
    """
    masks = [path for path in folder.rglob("*") if _is_image(path) and path.parent.name != "good"] if folder else []
    misnamed = sorted({*masks} - {Path(path) for path in used if path})
    if misnamed:
        raise ValueError(
            f"{len(misnamed)} masks match no image, the first is {misnamed[0]}: the mask of scratch/001.jpg is "
            f"masks/scratch/001.png or masks/scratch/001_mask.png"
        )


def _is_category(folder: Path) -> bool:
    return any((folder / name).is_dir() for name in ("good", "images", "test", "train"))


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _is_image(path)) if folder.is_dir() else []


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _EXTENSIONS and not path.name.startswith(".") and path.is_file()
