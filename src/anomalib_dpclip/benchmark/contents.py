"""What the files hold that a job reads: a job whose files have changed is another job."""

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError

import pandas as pd
from anomalib.data import AnomalibDataModule, get_datamodule
from anomalib.utils.config import flatten_dict

from anomalib_dpclip.auxiliary.auxiliary_set import AuxiliarySet
from anomalib_dpclip.auxiliary.samples import is_path
from anomalib_dpclip.data.photo_files import photo_files
from anomalib_dpclip.files.downloads import network_timeout

OF_NO_CONTENTS = "auxiliary_root"
"""Argument of models that names a folder of which a job may read a part only."""


class Target(NamedTuple):
    """Files of a data set that is tested on.

    Attributes:
        root: Folder that names of images are relative to.
        normal: Digest of each normal training image, by its name.
        digest: Of all files.
    """

    root: str
    normal: dict[str, str]
    digest: str


def target_of(data: dict[str, Any]) -> Target:
    """Prepare a data set, as a job would, and read its files.

    Args:
        data: As `anomalib.data.get_datamodule` takes it.
    """
    datamodule = get_datamodule(data)
    _prepare(datamodule)
    datamodule.setup()
    splits = [getattr(datamodule, f"{split}_data", None) for split in ("train", "val", "test")]
    samples = pd.concat([split.samples for split in splits if split is not None], ignore_index=True)
    root = root_of(datamodule)
    files = [path for column in ("image_path", "mask_path") for path in samples[column] if is_path(path)]
    train = getattr(datamodule, "train_data", None)
    normal = [] if train is None else train.samples.image_path[train.samples.label_index == 0]
    return Target(str(root), {name_of(path, root): digest_of(path) for path in normal}, digest_of_all(files, root))


def _prepare(datamodule: AnomalibDataModule) -> None:
    """Make sure that the files are there: downloaded or drawn where they are not."""
    try:
        with network_timeout():
            datamodule.prepare_data()
    except URLError as error:
        raise FileNotFoundError(
            f"{datamodule.name} is not in {root_of(datamodule)}, and cannot be downloaded ({error.reason}): fetch it "
            f"elsewhere, and name its folder with `root`"
        ) from error


def root_of(datamodule: AnomalibDataModule) -> Path:
    """Folder that images of a data module are named in: its root."""
    return Path(getattr(datamodule, "root", None) or ".").resolve()


def name_of(path: str | Path, root: Path) -> str:
    """An image's path relative to a folder, the same on every machine; the whole path where it lies elsewhere."""
    absolute = Path(path).resolve()
    return (absolute.relative_to(root) if absolute.is_relative_to(root) else absolute).as_posix()


def model_files(init_args: dict[str, Any]) -> list[Path]:
    """Files that a model's arguments name: weights, lists, pictures, and all photos of a folder."""
    arguments = flatten_dict(init_args).items()
    named = [Path(value) for name, value in arguments if isinstance(value, str) and not name.endswith(OF_NO_CONTENTS)]
    files = [path for path in named if path.is_file()]
    return files + [Path(photo) for path in named if path.is_dir() for photo in photo_files(path)]


def auxiliary_files(auxiliary: str | list[str], root: str | list[str] | None) -> list[str]:
    """Images and masks of labelled sets to learn from, which are prepared first.

    Args:
        auxiliary: Name of a set, path of a list, or several.
        root: Folder of all sets, or of each; by default the data modules' own.
    """
    learned = AuxiliarySet(auxiliary, root, shots=None, unmasked=True, seed=0)
    learned.prepare(None)
    samples = learned.samples(None)
    return [path for column in ("image_path", "mask_path") for path in samples[column] if is_path(path)]


def digest_of_all(paths: Iterable[str | Path], root: Path | None = None) -> str:
    """One digest of the names and contents of files, whatever their order.

    Args:
        paths: The files.
        root: Folder that their names are relative to; by default only contents count.
    """
    parts = sorted({("" if root is None else name_of(path, root)) + digest_of(path) for path in paths})
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@cache
def digest_of(path: str | Path) -> str:
    """SHA-256 of a file, read once a process."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()
