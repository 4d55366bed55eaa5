"""Labelled sets to learn from, by name: the test splits, with masks, of anomalib's image data modules."""

import importlib
import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anomalib.data
import pandas as pd
from anomalib.data import AnomalibDataModule
from anomalib.data.errors import MisMatchError

from anomalib_dpclip.data.listing.metadata import read_metadata
from anomalib_dpclip.files.downloads import network_timeout

logger = logging.getLogger(__name__)

MASKED_BMAD_CATEGORIES = ("Brain", "Liver", "Retina_RESC")
"""The categories of BMAD whose images have masks."""

_HOST_IMAGE_MODULES = "anomalib.data.datamodules.image."


def data_module_class(name: str) -> Any:
    """Data module class of a name, whatever its case.

    Args:
        name: Such as ``"VisA"`` or ``"MVTecAD"``.

    Raises:
        ValueError: If anomalib (with this plugin) has no image data module of that name.
    """
    known = {
        key.lower(): value
        for key, value in vars(anomalib.data).items()
        if inspect.isclass(value) and issubclass(value, AnomalibDataModule) and _is_of_image_categories(value)
    }
    if name.lower() not in known:
        names = ", ".join(sorted(value.__name__ for value in known.values()))
        raise ValueError(
            f"unknown data set {name!r}: it must be the path of a .jsonl file that exists, or one of {names} "
            f"(with /category for one category only)"
        )
    return known[name.lower()]


def categories_of(cls: type[AnomalibDataModule]) -> tuple[str, ...]:
    """All categories of a data module.

    Raises:
        ValueError: If it names none.
    """
    own = getattr(cls, "categories", None)
    if own:
        return tuple(own)
    for base in cls.__mro__:
        # anomalib keeps the list beside the dataset class, in a module named like the data module's.
        if base.__module__.startswith(_HOST_IMAGE_MODULES):
            module = importlib.import_module(base.__module__.replace(".datamodules.", ".datasets."))
            return tuple(module.CATEGORIES)
    raise ValueError(f"{cls.__name__} names no categories: pass one as {cls.__name__}/CATEGORY")


def auxiliary_categories_of(cls: type[AnomalibDataModule]) -> tuple[str, ...]:
    """The categories that are learned from where a data module is named as a whole: of BMAD those with masks."""
    if cls.__name__ == "BMAD":
        return MASKED_BMAD_CATEGORIES
    return tuple(getattr(cls, "auxiliary_categories", ())) or categories_of(cls)


def prepare_labelled_set(name: str, root: str | Path | None = None) -> None:
    """Make sure that a set is on disk, downloading it where anomalib can.

    Args:
        name: Name of a data module or path of a JSON-lines file, see `read_labelled_set`.
        root: Folder of the set; by default the data module's own.

    Raises:
        FileNotFoundError: If it is not there and cannot be had; says where it was looked for and what to do.
    """
    if _is_metadata(name):
        return
    for module in _modules(name, root):
        try:
            with network_timeout():
                module.prepare_data()
        except (OSError, RuntimeError, EOFError) as error:
            raise FileNotFoundError(
                f"the auxiliary set {name!r} is not in {_root_of(module)} and could not be downloaded ({error}). Point to "
                f"it with --model.training.auxiliary_root, name another with --model.auxiliary, or use adapters that are "
                f"already trained: --model.weights FILE"
            ) from error


def read_labelled_set(name: str, root: str | Path | None = None) -> pd.DataFrame:
    """Samples of a labelled set: the test splits of all its categories, or what a metadata file lists as ``test``.

    Args:
        name: A data module's name, optionally with one category (``"VisA"``, ``"MVTecAD/bottle"``), or the path of a JSON-lines
            file.
        root: Folder of the set; by default the data module's own, or the metadata file's.

    Returns:
        One row an image: ``image_path``, ``mask_path`` (``None`` where there is none), ``label_index``, ``class_name`` (as the
        set spells it), ``data_set``.

    Raises:
        FileNotFoundError: If the set is not there.
        ValueError: For an unknown name or category, images and masks that don't match, or a bad line of a file.
    """
    if _is_metadata(name):
        path = Path(name)
        samples = read_metadata(path, root or path.parent)
        samples = samples[samples.split == "test"]
        return samples.assign(data_set=path.resolve().parent.name).reset_index(drop=True)
    frames = []
    for module in _modules(name, root):
        try:
            with matching_masks(f"the auxiliary set {name!r}, category {module.category!r} in {_root_of(module)},"):
                module.setup()
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(
                f"the auxiliary set {name!r}, category {module.category!r}, cannot be read from {_root_of(module)}: {error}. "
                f"Point to it with --model.training.auxiliary_root, or use adapters already trained: --model.weights FILE"
            ) from error
        frames.append(module.test_data.samples.assign(class_name=module.category, data_set=module.name))
    return pd.concat(frames, ignore_index=True)


@contextmanager
def matching_masks(what: str, advice: str = "") -> Iterator[None]:
    """Name the data set whose images and masks do not match while anomalib reads it.

    Args:
        what: The data set.
        advice: What else can be done.

    Raises:
        ValueError: In place of pandas', which knows of lengths alone, and of anomalib's.
    """
    try:
        yield
    except (ValueError, MisMatchError) as error:
        raise ValueError(
            f"{what} is not as anomalib expects it: does each anomalous image have a mask of its own, and each mask an image? "
            f"{advice and f'Else {advice}. '}({' '.join(str(error).split())})"
        ) from error


def _modules(name: str, root: str | Path | None) -> list[AnomalibDataModule]:
    set_name, _, category = name.partition("/")
    cls = data_module_class(set_name)
    if category and category not in categories_of(cls):
        raise ValueError(f"{cls.__name__} has no category {category!r}: it has {', '.join(categories_of(cls))}")
    categories = (category,) if category else auxiliary_categories_of(cls)
    arguments: dict[str, Any] = {"root": root} if root is not None else {}
    if "val_split_mode" in _arguments(cls):
        arguments["val_split_mode"] = "none"  # every labelled test image is learned from
    return [cls(category=each, **arguments) for each in categories]  # type: ignore[call-arg]  # as all that have a name


def _is_metadata(name: str) -> bool:
    return name.endswith((".jsonl", ".json")) or Path(name).is_file()


def _is_of_image_categories(cls: type[AnomalibDataModule]) -> bool:
    """Whether a data module has images, neither videos nor point clouds, of known categories."""
    is_image = any(base.__module__.startswith(_HOST_IMAGE_MODULES) for base in cls.__mro__)
    return "category" in _arguments(cls) and (is_image or hasattr(cls, "categories"))


def _arguments(cls: type) -> set[str]:
    return set(inspect.signature(cls).parameters)


def _root_of(module: AnomalibDataModule) -> Path:
    return Path(getattr(module, "root", ".")).resolve()
