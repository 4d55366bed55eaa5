"""Labelled sets by name: what anomalib's image data modules and JSON-lines files have to learn from or to list."""

import importlib
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anomalib.data
import pandas as pd
from anomalib.data import AnomalibDataModule
from anomalib.data.errors import MisMatchError

from anomalib_dpclip.data.listing.metadata import Sample, read_metadata, to_frame
from anomalib_dpclip.files.downloads import network_timeout

MASKED_BMAD_CATEGORIES = ("Brain", "Liver", "Retina_RESC")
"""The categories of BMAD whose images have masks."""

_HOST_IMAGE_MODULES = "anomalib.data.datamodules.image."


def data_module_class(name: str) -> Any:
    """Data module class of a name such as ``"VisA"``, whatever its case; a ValueError if there is none of images."""
    known: dict[str, Any] = {}
    for key, value in vars(anomalib.data).items():
        if inspect.isclass(value) and issubclass(value, AnomalibDataModule):
            # Images, neither videos nor point clouds, of known categories.
            is_image = any(base.__module__.startswith(_HOST_IMAGE_MODULES) for base in value.__mro__)
            if "category" in inspect.signature(value).parameters and (is_image or hasattr(value, "categories")):
                known[key.lower()] = value
    if name.lower() not in known:
        names = ", ".join(sorted(value.__name__ for value in known.values()))
        raise ValueError(
            f"unknown data set {name!r}: it must be the path of a .jsonl file that exists, or one of {names} "
            f"(with /category for one category only)"
        )
    return known[name.lower()]


def categories_of(cls: type[AnomalibDataModule]) -> tuple[str, ...]:
    """All categories of a data module; a ValueError if it names none."""
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
    """Download a set, see `read_labelled_set`, where it is not on disk; a FileNotFoundError if it cannot be had."""
    for module in () if _is_metadata(name) else _auxiliary_modules(name, root):
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
        name: Name of a data module (``"VisA"``, ``"MVTecAD/bottle"`` for a category), or path of a JSON-lines file.
        root: Folder of the set; by default the data module's own, or the metadata file's.

    Returns:
        One row an image: ``image_path``, ``mask_path`` (``None`` where there is none), ``label_index``, ``class_name`` (as the
        set spells it), ``data_set``.
    """
    if _is_metadata(name):
        path = Path(name)
        samples = read_metadata(path, root or path.parent)
        samples = samples[samples.split == "test"]
        return samples.assign(data_set=path.resolve().parent.name).reset_index(drop=True)
    frames = []
    for module in _auxiliary_modules(name, root):
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


def datamodule_samples(name: str, root: Path, seed: int = 0) -> pd.DataFrame:
    """List the training and test images of an anomalib data set, as `to_frame` does: of all of its categories that are on disk.

    The folder must be as anomalib expects it, else a FileNotFoundError or ValueError; VisA is brought into that layout.
    """
    cls = data_module_class(name)
    categories = categories_of(cls)
    # VisA's converted folders are one level further down, and empty for categories that are not there.
    found = [each for each in categories if any(map(_has_files, (root / each, *root.glob(f"*/{each}"))))]
    if not found:
        raise FileNotFoundError(f"no category of {name} in {root}: a folder of {', '.join(categories)} should be there")
    samples = []
    # Everything that the test folder holds, and nothing moved to a validation split.
    for module in _modules(cls, found, root=root, val_split_mode="none", test_split_mode="from_dir", seed=seed):
        with matching_masks(f"category {module.category} of {name} in {root}"):
            module.prepare_data()
            module.setup()
        for split, dataset in (("train", module.train_data), ("test", module.test_data)):
            for row in dataset.samples.itertuples():
                if row.label_index in (0, 1):  # -1 where the label is kept secret
                    mask = _only_mask(row.mask_path, row.image_path)
                    samples.append(Sample(row.image_path, int(row.label_index), module.category, mask, split))
    return to_frame(samples)


@contextmanager
def matching_masks(what: str, advice: str = "") -> Iterator[None]:
    """A ValueError that names the data set, and what else can be done, where anomalib finds masks that don't match."""
    try:
        yield
    except (ValueError, MisMatchError) as error:
        raise ValueError(
            f"{what} is not as anomalib expects it: does each anomalous image have a mask of its own, and each mask an image? "
            f"{advice and f'Else {advice}. '}({' '.join(str(error).split())})"
        ) from error


def is_path(value: Any) -> bool:
    """Whether a sample's ``mask_path`` is one: anomalib's tables hold None, NaN or nothing where there is no mask."""
    return isinstance(value, str | Path) and bool(str(value))


def _auxiliary_modules(name: str, root: str | Path | None) -> list[Any]:
    set_name, _, category = name.partition("/")
    cls = data_module_class(set_name)
    if category and category not in categories_of(cls):
        raise ValueError(f"{cls.__name__} has no category {category!r}: it has {', '.join(categories_of(cls))}")
    place = {} if root is None else {"root": root}
    # Every labelled test image is learned from.
    return _modules(cls, (category,) if category else auxiliary_categories_of(cls), val_split_mode="none", **place)


def _modules(cls: Any, categories: Sequence[str], **arguments: Any) -> list[Any]:
    """A data module for each category, with those of the arguments that it knows."""
    known = inspect.signature(cls).parameters
    options = {name: value for name, value in arguments.items() if name in known}
    return [cls(category=each, **options) for each in categories]


def _only_mask(masks: object, image_path: str) -> str | None:
    """The mask of a sample of anomalib's, which may be a path, a list of paths, ``None``, NaN or empty."""
    if isinstance(masks, list) and len(masks) > 1:
        raise ValueError(f"{image_path} has {len(masks)} masks, but a metadata file has one an image: merge them first")
    mask: Any = masks[0] if isinstance(masks, list) and masks else masks
    return mask if is_path(mask) else None


def _has_files(folder: Path) -> bool:
    return any(path.is_file() for path in folder.rglob("*"))


def _is_metadata(name: str) -> bool:
    return name.endswith((".jsonl", ".json")) or Path(name).is_file()


def _root_of(module: AnomalibDataModule) -> Path:
    return Path(getattr(module, "root", ".")).resolve()
