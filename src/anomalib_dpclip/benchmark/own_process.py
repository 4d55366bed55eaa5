"""Work in a process of its own: its memory is that work's alone, and what kills it ends nothing else."""

import math
import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

PRELOADED = ("anomalib_dpclip.benchmark.measure",)
"""Imported once, by the server that processes are forked from: the import takes longer than many a job."""


def in_own_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function of a module in a new process.

    Args:
        function: The function.
        args: Its arguments, which can be pickled.
        kwargs: Likewise.

    Returns:
        What it returns.

    Raises:
        RuntimeError: The process was ended from outside. What the function raises is raised here too.
    """
    # A fork server forks before anything has run in it, no thread and no GPU; where there is none, as on Windows, spawn does.
    has_server = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if has_server else "spawn")
    if has_server:
        context.set_forkserver_preload(list(PRELOADED))
    with ProcessPoolExecutor(1, mp_context=context, initializer=_be_silent) as pool:
        try:
            return pool.submit(function, *args, **kwargs).result()
        except BrokenProcessPool as error:
            raise RuntimeError("its process was ended from outside: was there too little memory?") from error


def _be_silent() -> None:
    """Send what libraries print and log to nowhere: a job's answer is what it returns."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def peak_memory(device: int | None) -> float:
    """Peak memory of this process in MiB: what torch allocated on a GPU, or all that it held; NaN where nobody knows.

    Args:
        device: Index of the GPU; ``None`` for the process's memory, libraries included, data loaders' workers not.
    """
    if device is not None:
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return math.nan
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
