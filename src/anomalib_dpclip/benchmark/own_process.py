"""Work in a process of its own: its memory is that work's alone, and what kills it ends nothing else."""

import math
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

PRELOADED = ("anomalib_dpclip.benchmark.measure",)
"""Imported once, by the server that processes are forked from: the import takes longer than many a job."""


class Outcome(NamedTuple):
    """What a function has returned, or why it failed, in a line and as a traceback."""

    result: Any = None
    reason: str = ""
    log: str = ""


def attempt(function: Callable[..., Any], *arguments: Any) -> Outcome:
    """Call a function."""
    try:
        return Outcome(function(*arguments))
    except Exception as error:  # noqa: BLE001  of any model: the other jobs go on
        return Outcome(None, reason_of(error), traceback.format_exc())


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Outcome:
    """Call a function of a module in a new process, with arguments that can be pickled."""
    # A fork server forks before anything has run in it, no thread and no GPU; where there is none, as on Windows, spawn does.
    has_server = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if has_server else "spawn")
    if has_server:
        context.set_forkserver_preload(list(PRELOADED))
    with ProcessPoolExecutor(1, mp_context=context, initializer=_be_silent) as pool:
        try:
            return pool.submit(attempt, function, *arguments).result()
        except BrokenProcessPool:
            return Outcome(reason="its process was ended from outside: was there too little memory?")


def reason_of(error: BaseException) -> str:
    """An error in a line."""
    return " ".join(f"{type(error).__name__}: {str(error) or error.__cause__}".split())


def _be_silent() -> None:
    """Send what libraries print and log to nowhere: a job's answer is what it returns."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def peak_memory(device: int | None) -> float:
    """Peak memory of this process in MiB: what torch allocated on a GPU, or all that it held; NaN where nobody knows."""
    if device is not None:
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return math.nan
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
