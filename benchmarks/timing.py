"""Timing that survives a busy machine: alternating runs, medians, and ratios of them."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import trange

CHECKOUT = Path(__file__).parents[1]
"""Where `benchmarks` can be imported from."""


def alternating_seconds(
    candidates: Mapping[str, Callable[[], Any]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Run candidates in turn, so that what slows the machine down slows all of them.

    Args:
        candidates: What to run, by name.
        repeats: Timed rounds; one more, untimed, comes first.
        clock: Of the timing: ``time.process_time`` counts the process's own work, whatever else the machine does.

    Returns:
        Seconds of each timed run, by name.

    Raises:
        ValueError: If there is no round to time.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, not {repeats}")
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for round_index in trange(repeats + 1, desc="rounds", leave=False):
        for name, run in candidates.items():
            synchronize()
            start = clock()
            run()
            synchronize()
            if round_index:
                seconds[name].append(clock() - start)
    return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """Median seconds by name."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def synchronize() -> None:
    """Wait for the accelerator, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def device() -> torch.device:
    """Where to measure."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def in_new_process(function: str, **arguments: Any) -> Any:
    """Call ``module:function`` in a fresh process, for values that an earlier measurement would spoil, such as peak memory.

    Args:
        function: Such as ``"benchmarks.training:measure_step"``.
        arguments: Plain data.

    Returns:
        What it returned: plain data.

    Raises:
        RuntimeError: If the process failed; with the end of what it said.
    """
    module, _, name = function.partition(":")
    code = f"import json, sys; from {module} import {name}; print('\\n' + json.dumps({name}(**json.loads(sys.argv[1]))))"
    command = [sys.executable, "-c", code, json.dumps(arguments)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)  # noqa: S603  (our own code)
    if done.returncode:
        raise RuntimeError(f"{function} failed in a new process: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])
