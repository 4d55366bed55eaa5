"""Batches of the auxiliary set, shuffled repeatably."""

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, DistributedSampler

from anomalib_dpclip.auxiliary.dataset import AuxiliaryDataset
from anomalib_dpclip.data.items import NamedImageBatch
from anomalib_dpclip.data.workers import default_num_workers


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
    num_workers: int | None,
    seed: int,
    world_size: int = 1,
    rank: int = 0,
) -> DataLoader:
    """Batches of an auxiliary set; the last, smaller one is kept.

    Args:
        dataset: The set.
        batch_size: Images a batch (and process).
        num_workers: Worker processes; ``None`` for as many as fit the machine.
        seed: Seed of the shuffling.
        world_size: Number of processes training together.
        rank: Which of them this is.
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
