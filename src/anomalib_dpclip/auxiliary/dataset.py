"""The images that adapters learn from: read, augmented and shuffled repeatably."""

from collections.abc import Iterator, Sequence
from copy import copy

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import to_dtype, to_image
from torchvision.tv_tensors import Image as ImageTensor
from torchvision.tv_tensors import Mask

from anomalib_dpclip.clip.pretraining import Preprocessing
from anomalib_dpclip.data.images import read_image
from anomalib_dpclip.data.items import NamedImageBatch, NamedImageItem
from anomalib_dpclip.data.readers import MaskReader, default_num_workers
from anomalib_dpclip.files.seeded import seeded
from anomalib_dpclip.pre_processing.resize import EightBitResize


def colour_jitter() -> v2.Transform:
    """Brightness, contrast and saturation, each by up to 50 % with probability 0.7; on the image before its resize."""
    kinds = ("brightness", "contrast", "saturation")
    return v2.Compose([v2.RandomApply([v2.ColorJitter(**{kind: 0.5})], p=0.7) for kind in kinds])


def geometric(fill: Sequence[float]) -> v2.Transform:
    """Rotation by up to 30 degrees, translation by up to 15 %, both flips, each with probability 0.5; nearest sampling.

    Uncovered image pixels get the colour ``fill``, in the method CLIP's mean, which is 0 in the normalised image; masks get 0.
    """
    fills = {ImageTensor: list(fill), Mask: 0}
    return v2.Compose(
        [
            v2.RandomApply([v2.RandomRotation(30, fill=fills)], p=0.5),
            v2.RandomApply([v2.RandomAffine(0, translate=(0.15, 0.15), fill=fills)], p=0.5),
            v2.RandomHorizontalFlip(0.5),
            v2.RandomVerticalFlip(0.5),
        ]
    )


class AuxiliaryDataset(Dataset):
    """Labelled images as the method trains on them: jittered, resized, rotated, shifted and flipped.

    An index is a pair (epoch, image): every random choice follows from it and the seed alone, so that a run can be repeated
    and resumed exactly, whatever the number of workers. A plain index counts as of epoch 0 (Lightning's `overfit_batches`
    brings a sampler of its own). The backbone's preprocessing says how to resize, and which colour uncovered pixels get.
    """

    def __init__(self, samples: pd.DataFrame, image_size: tuple[int, int], preprocessing: Preprocessing, seed: int) -> None:
        self.samples = samples
        self.interpolation = preprocessing.interpolation
        self.resize = EightBitResize(image_size, self.interpolation)
        self.seed = seed
        self._read_mask = MaskReader()
        self.colour_jitter, self.geometric = colour_jitter(), geometric(preprocessing.mean)
        self.fully_masked = bool(samples.mask_path[samples.label_index == 1].notna().all())

    def plain(self, image_size: tuple[int, int]) -> "AuxiliaryDataset":
        """The same images as they are, not augmented, of a height and width."""
        images = copy(self)
        images.resize = EightBitResize(image_size, self.interpolation)
        images.colour_jitter = images.geometric = v2.Identity()
        return images

    def __len__(self) -> int:
        """Number of images."""
        return len(self.samples)

    def __getitem__(self, index: tuple[int, int] | int) -> NamedImageItem:
        """Image ``(3, H, W)`` in [0, 1], mask ``(H, W)``, label and class name; raises as `read_mask`."""
        epoch, position = index if isinstance(index, tuple) else (0, index)
        sample = self.samples.iloc[position]
        image = read_image(sample.image_path)
        has_mask = sample.label_index == 0 or sample.mask_path is not None
        if sample.label_index == 1 and has_mask:
            mask = self._read_mask(sample.mask_path, image.size, sample.image_path)
        else:
            mask = np.zeros((image.height, image.width), dtype=np.uint8)
        with seeded(int(np.random.SeedSequence([self.seed, epoch, position]).generate_state(1)[0])):
            resized, mask_tensor = self.resize(to_image(self.colour_jitter(image)), Mask(torch.from_numpy(mask)))
            image_tensor = to_dtype(resized, torch.float32, scale=True)
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
    dataset: AuxiliaryDataset, batch_size: int, num_workers: int | None, seed: int, world_size: int = 1, rank: int = 0
) -> DataLoader:
    """Batches of a set, shuffled by a seed, of one of the processes that train together; the last, smaller one is kept.

    Where the number of workers is ``None``, there are as many as fit the machine.
    """
    workers = default_num_workers(world_size) if num_workers is None else num_workers
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=EpochSampler(dataset, num_replicas=world_size, rank=rank, shuffle=True, seed=seed),
        num_workers=workers,
        collate_fn=NamedImageBatch.collate,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
