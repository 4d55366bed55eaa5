"""Peak memory of a stretch of work, in this process.

Jobs of one process follow each other, so what an earlier one left is given back first: models and trainers hold each
other and wait for the garbage collector, and the C library keeps what it was given back.
"""

import ctypes
import gc
import math
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


class PeakMemory:
    """Counts from its making: what torch allocated on a GPU, or the resident memory of the whole process.

    The latter includes the libraries, but not the data loaders' worker processes.

    Args:
        gpu: Index of the GPU; ``None`` for the process's memory.
    """

    def __init__(self, gpu: int | None) -> None:
        self._gpu = gpu
        gc.collect()
        if gpu is not None:
            torch.cuda.reset_peak_memory_stats(gpu)
        elif _CLEAR_REFS.exists():
            give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
            if give_back is not None:
                give_back(0)
            _CLEAR_REFS.write_text("5", encoding="ascii")  # Linux: the peak starts anew from what is in use now

    def mebibytes(self) -> float:
        """The peak in MiB; NaN on the CPU of a system whose peak cannot be reset: it would be an earlier job's."""
        if self._gpu is not None:
            return torch.cuda.max_memory_allocated(self._gpu) / 2**20
        if not _CLEAR_REFS.exists():
            return math.nan
        lines = _STATUS.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM:"))
