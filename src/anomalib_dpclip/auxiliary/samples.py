"""The labelled images that adapters learn from, one row each, and whether they have what the method needs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
from anomalib.data import AnomalibDataModule, AnomalibDataset

from anomalib_dpclip.data.labelled_sets import read_labelled_set
from anomalib_dpclip.data.listing.few_shot import few_shot
from anomalib_dpclip.data_sets.class_names import describe
from anomalib_dpclip.data_sets.names import data_set_key

AuxiliarySource: TypeAlias = "str | Path | AnomalibDataset | AnomalibDataModule"
"""A name, a JSON-lines file, or a data set or data module object."""


def default_auxiliary(target: str | None) -> str:
    """Set to learn from when none is named: VisA, or MVTec AD when VisA is the target; the procedural surfaces' own six."""
    return {"visa": "MVTecAD", "surfaces": "Surfaces"}.get(data_set_key(target), "VisA")


def auxiliary_samples(
    sources: Sequence[AuxiliarySource],
    roots: Sequence[str | Path | None],
    shots: int | None = None,
    seed: int = 111,
    allow_unmasked: bool = False,
) -> pd.DataFrame:
    """All images to learn from.

    Args:
        sources: Sets, concatenated.
        roots: Folder of each set that is a name or file; ``None`` for its default.
        shots: Only so many images of each category, half of them anomalous where there are enough.
        seed: Seed of that choice.
        allow_unmasked: Whether anomalous images may lack a mask; they then train the classification loss only.

    Returns:
        One row an image: ``image_path``, ``mask_path``, ``label_index``, ``class_name`` (readable), ``data_set``.

    Raises:
        FileNotFoundError: If a set is not there.
        ValueError: If anomalous images lack masks, or there is none.
    """
    if not sources:
        raise ValueError("auxiliary names no set to learn from")
    frames = [_samples_of(source, root) for source, root in zip(sources, roots, strict=True)]
    if shots is not None:
        frames = [few_shot(frame, shots, seed) for frame in frames]
    samples = pd.concat(frames, ignore_index=True)[["image_path", "mask_path", "label_index", "class_name", "data_set"]]
    samples["class_name"] = list(map(describe, samples.data_set, samples.class_name))
    anomalous = samples[samples.label_index == 1]
    names = ", ".join(samples.data_set.unique())
    if anomalous.empty:
        raise ValueError(f"the auxiliary set {names} has no anomalous image: DP-CLIP learns what damage looks like from them")
    unmasked = anomalous[~anomalous.mask_path.map(is_path)]
    if len(unmasked) == len(anomalous) or (len(unmasked) and not allow_unmasked):
        raise ValueError(
            f"{len(unmasked)} of {len(anomalous)} anomalous images of the auxiliary set {names} have no mask, the first is "
            f"{unmasked.image_path.iloc[0]}: DP-CLIP learns from masks. Add them, name another set with "
            f"--model.auxiliary, or let such images train the classification alone (where some have masks) with "
            f"--model.training.auxiliary_unmasked true"
        )
    return samples


def _samples_of(source: AuxiliarySource, root: str | Path | None) -> pd.DataFrame:
    if not isinstance(source, AnomalibDataModule | AnomalibDataset):
        return read_labelled_set(str(source), root)
    dataset: Any = source
    if isinstance(source, AnomalibDataModule):
        source.prepare_data()
        source.setup()
        dataset = source.test_data
    samples = dataset.samples.assign(data_set=source.name)
    return samples if "class_name" in samples else samples.assign(class_name=source.category or "")


def is_path(value: Any) -> bool:
    """Whether a sample's ``mask_path`` is one: anomalib's tables hold None, NaN or nothing where there is no mask."""
    return isinstance(value, str | Path) and bool(str(value))
