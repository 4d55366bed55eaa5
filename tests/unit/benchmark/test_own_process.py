import os
import signal

import numpy as np
import pytest

from anomalib_dpclip.benchmark import own_process
from anomalib_dpclip.benchmark.own_process import in_own_process, peak_memory


@pytest.fixture(autouse=True)
def _bare(monkeypatch):
    monkeypatch.setattr(own_process, "PRELOADED", ())


def _hold(mebibytes):
    held = np.ones(mebibytes * 2**17)
    return os.getpid(), peak_memory(None), len(held)


def _fail():
    raise KeyError("x")


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def test_each_has_its_own_process_and_peak_memory(capfd):
    large, small = (in_own_process(_hold, mebibytes).result for mebibytes in (400, 1))
    assert os.getpid() not in {large[0], small[0]}
    assert large[0] != small[0]
    assert 350 < large[1] - small[1] < 450


def test_errors_are_told_and_output_is_not(capfd):
    result, reason, log = in_own_process(_fail)
    assert (result, reason) == (None, "KeyError: 'x'")
    assert "in _fail" in log
    in_own_process(print, "text")
    assert "text" not in capfd.readouterr().out


def test_a_killed_process_is_an_error():
    assert in_own_process(_die).reason.startswith("its process was ended from outside")
