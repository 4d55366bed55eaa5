"""Random draws that depend on a seed alone, and after which every global generator is as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generators, of the CPU and of GPUs in use, for the length of the block.

    `torch.manual_seed` would also seed GPUs that `fork_rng` does not restore, and those that come into use later.

    Example:
        >>> with seeded(0):
        ...     first = torch.rand(1)
        >>> with seeded(0):
        ...     print(torch.equal(torch.rand(1), first))
        True
    """
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(seed)
        if gpus:
            torch.cuda.manual_seed_all(seed)
        yield
