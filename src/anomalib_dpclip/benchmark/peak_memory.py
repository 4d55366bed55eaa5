"""Peak memory of a stretch of work, in this process."""

import math
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


class PeakMemory:
    """Counts from its making: memory of a GPU that torch allocated, or the process's resident memory.

    Args:
        gpu: Index of the GPU; ``None`` for the process's memory.
    """

    def __init__(self, gpu: int | None) -> None:
        self._gpu = gpu
        if gpu is not None:
            torch.cuda.reset_peak_memory_stats(gpu)
        elif _CLEAR_REFS.exists():
            _CLEAR_REFS.write_text("5", encoding="ascii")  # Linux: the peak starts anew from what is in use now

    def mebibytes(self) -> float:
        """The peak in MiB; NaN on the CPU of a system whose peak cannot be reset: it would be an earlier job's."""
        if self._gpu is not None:
            return torch.cuda.max_memory_allocated(self._gpu) / 2**20
        if not _CLEAR_REFS.exists():
            return math.nan
        lines = _STATUS.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM:"))
