"""Labelled images of anomalib's data sets, as the rows of a metadata file."""

import inspect
from pathlib import Path
from typing import Any

import pandas as pd

from anomalib_dpclip.data.listing.metadata import Sample, to_frame


def datamodule_samples(name: str, root: str | Path, seed: int = 0) -> pd.DataFrame:
    """List the training and test images of an anomalib data set: of all of its categories that are on disk.

    Args:
        name: Image data module of anomalib, e.g. ``"MVTecAD"``, ``"VisA"`` or ``"BMAD"``.
        root: Folder of the data set, in the layout that anomalib expects. VisA is brought into it where it isn't.
        seed: Seed of the data module's splits, where it makes any.

    Returns:
        Rows as `anomalib_dpclip.data.listing.metadata.to_frame` describes them.

    Raises:
        FileNotFoundError: If none of the categories is there.
        ValueError: If there is no such data module, or it has several masks an image.
    """
    # Deferred, as anomalib takes seconds to import.
    from anomalib_dpclip.data.labelled_sets import categories_of, data_module_class

    folder, datamodule_class = Path(root), data_module_class(name)
    categories = categories_of(datamodule_class)
    # VisA's converted folders are one level further down, and empty for categories that are not there.
    found = [each for each in categories if any(map(_has_files, (folder / each, *folder.glob(f"*/{each}"))))]
    if not found:
        raise FileNotFoundError(f"no category of {name} in {root}: a folder of {', '.join(categories)} should be there")
    # Everything that the test folder holds, and nothing moved to a validation split; some modules know no such modes.
    options: dict[str, Any] = {"val_split_mode": "none", "test_split_mode": "from_dir", "seed": seed}
    known = inspect.signature(datamodule_class).parameters
    options = {"root": folder, **{key: value for key, value in options.items() if key in known}}
    samples = []
    for category in found:
        datamodule = datamodule_class(category=category, **options)  # type: ignore[call-arg]  # as all that have a name
        datamodule.prepare_data()
        datamodule.setup()
        for split, dataset in (("train", datamodule.train_data), ("test", datamodule.test_data)):
            for row in dataset.samples.itertuples():
                if row.label_index in (0, 1):  # -1 where the label is kept secret
                    mask = _only_mask(row.mask_path, row.image_path)
                    samples.append(Sample(row.image_path, int(row.label_index), category, mask, split))
    return to_frame(samples)


def _only_mask(masks: object, image_path: str) -> str | None:
    """The mask of a sample of anomalib's, which may be a path, a list of paths, ``None``, NaN or empty."""
    if isinstance(masks, list) and len(masks) > 1:
        raise ValueError(f"{image_path} has {len(masks)} masks, but a metadata file has one an image: merge them first")
    mask = masks[0] if isinstance(masks, list) and masks else masks
    return mask if isinstance(mask, str) and mask else None


def _has_files(folder: Path) -> bool:
    return any(path.is_file() for path in folder.rglob("*"))
