"""Processes that read images: how many there are where the user does not say, and what all of them say once."""

import multiprocessing
from typing import Any

import torch
from lightning.fabric.utilities.data import suggested_max_num_workers

MAX_WORKERS = 8
"""More processes than this only wait for each other."""


def default_num_workers(devices: int = 1) -> int:
    """Number of worker processes of a data loader on this machine, counted as Lightning's own warning counts them.

    None where processes are not forked (Windows, macOS): there every worker starts Python anew and imports a script that may
    not expect it. Nor in a process that may have no children, as those of a pool.

    Args:
        devices: Processes of this machine that train or predict together.

    Returns:
        Workers of each of them, in 0..`MAX_WORKERS`.
    """
    if multiprocessing.get_start_method() != "fork" or multiprocessing.current_process().daemon:
        return 0
    return min(MAX_WORKERS, suggested_max_num_workers(devices))


class Once:
    """True the first time that it is asked, in whichever process and copy of a data set."""

    def __init__(self) -> None:
        self._asked = torch.zeros(1, dtype=torch.bool).share_memory_()

    def __call__(self) -> bool:
        """Whether nobody has asked before."""
        first = not self._asked
        self._asked.fill_(True)
        return first

    def __deepcopy__(self, memo: dict[int, Any]) -> "Once":
        """The same: anomalib copies data sets to split them."""
        return self
