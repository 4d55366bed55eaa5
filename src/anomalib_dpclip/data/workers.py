"""How many processes read images where the user does not say."""

import multiprocessing

from lightning.fabric.utilities.data import suggested_max_num_workers

MAX_WORKERS = 8
"""More processes than this only wait for each other."""


def default_num_workers(devices: int = 1) -> int:
    """Number of worker processes of each data loader of this machine, 0..`MAX_WORKERS`, counted as Lightning's warning does.

    None where processes are not forked (Windows, macOS): there every worker starts Python anew and imports a script that may
    not expect it. Nor in a process that may have no children, as those of a pool.

    Args:
        devices: Processes of this machine that train or predict together.
    """
    if multiprocessing.get_start_method() != "fork" or multiprocessing.current_process().daemon:
        return 0
    return min(MAX_WORKERS, suggested_max_num_workers(devices))
