"""Peak memory: of the work itself, not of what came before."""

import pytest
import torch
from benchmarks import peak_memory
from benchmarks.peak_memory import PeakMemory

pytestmark = pytest.mark.skipif(not peak_memory._CLEAR_REFS.exists(), reason="the peak of this system cannot be reset")

MEBIBYTES = 400


class Job:
    """Holds itself, as models and trainers do, so that it waits for the garbage collector."""

    def __init__(self, size):
        self.itself = self
        self.blocks = [torch.ones(size // 4) for _ in range(MEBIBYTES * 2**20 // size)]


@pytest.mark.parametrize("size", [2**24, 2**16])
def test_what_an_earlier_job_left_does_not_count(size):
    idle = PeakMemory(None).mebibytes()
    Job(size)
    during = PeakMemory(None).mebibytes()
    assert during < idle + MEBIBYTES / 4

    memory = PeakMemory(None)
    Job(size)
    assert memory.mebibytes() > during + MEBIBYTES / 2
