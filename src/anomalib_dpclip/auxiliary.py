"""The labelled set that DP-CLIP learns from: which images, and how they are read, augmented and shuffled, repeatably."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from anomalib.data import AnomalibDataModule, AnomalibDataset
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from torchvision.tv_tensors import Image as ImageTensor
from torchvision.tv_tensors import Mask

from anomalib_dpclip.augmentation import colour_jitter, geometric, resize_image, resize_mask
from anomalib_dpclip.class_names import data_set_key, describe
from anomalib_dpclip.data.few_shot import few_shot
from anomalib_dpclip.data.images import read_image, read_mask
from anomalib_dpclip.data.items import NamedImageBatch, NamedImageItem
from anomalib_dpclip.data.labelled_sets import read_labelled_set

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
    pairs = zip(samples.data_set, samples.class_name, strict=True)
    samples["class_name"] = [describe(data_set, category) for data_set, category in pairs]
    anomalous = samples[samples.label_index == 1]
    names = ", ".join(samples.data_set.unique())
    if anomalous.empty:
        raise ValueError(f"the auxiliary set {names} has no anomalous image: DP-CLIP learns what damage looks like from them")
    unmasked = anomalous[~anomalous.mask_path.map(_is_path)]
    if len(unmasked) == len(anomalous) or (len(unmasked) and not allow_unmasked):
        raise ValueError(
            f"{len(unmasked)} of {len(anomalous)} anomalous images of the auxiliary set {names} have no mask, the first is "
            f"{unmasked.image_path.iloc[0]}: DP-CLIP learns from masks. Add them, name another set with "
            f"--model.auxiliary, or let such images train the classification alone (where some have masks) with "
            f"--model.auxiliary_unmasked true"
        )
    return samples


class AuxiliaryDataset(Dataset):
    """Labelled images as the method trains on them: jittered, resized, rotated, shifted and flipped.

    An index is a pair (epoch, image): every random choice follows from it and the seed alone, so that a run can be repeated
    and resumed exactly, whatever the number of workers. A plain index counts as of epoch 0 (Lightning's `overfit_batches`
    brings a sampler of its own).

    Args:
        samples: As `auxiliary_samples` gives them.
        image_size: Height and width of the images.
        fill: Colour of pixels that rotation and translation uncover.
        seed: Seed of the augmentation.
    """

    def __init__(self, samples: pd.DataFrame, image_size: tuple[int, int], fill: Sequence[float], seed: int) -> None:
        self.samples = samples
        self.image_size = image_size
        self.seed = seed
        self.colour_jitter, self.geometric = colour_jitter(), geometric(fill)
        anomalous = samples.label_index == 1
        self.fully_masked = bool(samples.mask_path[anomalous].map(_is_path).all())

    def __len__(self) -> int:
        """Number of images."""
        return len(self.samples)

    def __getitem__(self, index: tuple[int, int] | int) -> NamedImageItem:
        """Image ``(3, H, W)`` in [0, 1], mask ``(H, W)``, label and class name of a pair (epoch, image).

        Raises:
            ImageReadError: If image or mask cannot be read; names the file.
        """
        epoch, position = index if isinstance(index, tuple) else (0, index)
        sample = self.samples.iloc[position]
        image = read_image(sample.image_path)
        has_mask = sample.label_index == 0 or _is_path(sample.mask_path)
        if sample.label_index == 1 and has_mask:
            mask = read_mask(sample.mask_path, image.size, sample.image_path)
        else:
            mask = np.zeros((image.height, image.width), dtype=np.uint8)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.SeedSequence([self.seed, epoch, position]).generate_state(1)[0]))
            image_tensor = ImageTensor(resize_image(self.colour_jitter(image), self.image_size))
            mask_tensor = resize_mask(torch.from_numpy(mask), self.image_size)
            image_tensor, mask_tensor, label = self._labelled(image_tensor, mask_tensor, int(sample.label_index))
            image_tensor, mask_tensor = self.geometric(image_tensor, mask_tensor)
        return NamedImageItem(
            image=image_tensor,
            gt_mask=mask_tensor,
            gt_label=torch.tensor(label),
            image_path=sample.image_path,
            class_name=sample.class_name,
            # Left out where all masks are known: a training step then has nothing to ask the device for.
            has_mask=None if self.fully_masked else torch.tensor(has_mask),
        )

    def _labelled(self, image: ImageTensor, mask: Mask, label: int) -> tuple[ImageTensor, Mask, int]:
        """Image, mask and label as they are learned from; a subclass may change them, by chance that the seed decides."""
        return image, mask, label


class EpochSampler(DistributedSampler):
    """Shuffles by seed and epoch, and yields pairs (epoch, image).

    It is a DistributedSampler also in a single process, so that Lightning uses it as it is. The processes' batches are
    interleaved: together they are the batch that one process with all their images would see.
    """

    def __iter__(self) -> Iterator[tuple[int, int]]:  # type: ignore[override]
        """Pairs (epoch, image) of this process."""
        return ((self.epoch, index) for index in super().__iter__())


def auxiliary_loader(
    dataset: AuxiliaryDataset,
    batch_size: int,
    num_workers: int,
    seed: int,
    world_size: int = 1,
    rank: int = 0,
) -> DataLoader:
    """Batches of an auxiliary set; the last, smaller one is kept.

    Args:
        dataset: The set.
        batch_size: Images a batch (and process).
        num_workers: Worker processes.
        seed: Seed of the shuffling.
        world_size: Number of processes training together.
        rank: Which of them this is.
    """
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=EpochSampler(dataset, num_replicas=world_size, rank=rank, shuffle=True, seed=seed),
        num_workers=num_workers,
        collate_fn=NamedImageBatch.collate,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def _samples_of(source: AuxiliarySource, root: str | Path | None) -> pd.DataFrame:
    if isinstance(source, AnomalibDataModule):
        source.prepare_data()
        source.setup()
        return _from_dataset(source.test_data, source.name, source.category)
    if isinstance(source, AnomalibDataset):
        return _from_dataset(source, source.name, source.category)
    return read_labelled_set(str(source), root)


def _from_dataset(dataset: AnomalibDataset, name: str, category: str | None) -> pd.DataFrame:
    samples = dataset.samples.assign(data_set=name)
    return samples if "class_name" in samples else samples.assign(class_name=category or "")


def _is_path(value: Any) -> bool:
    return isinstance(value, str | Path) and bool(str(value))
