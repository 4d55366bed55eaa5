"""Start-up: what the entry point adds to `import torch`, and this package to anomalib's own import."""

import os
import statistics
import subprocess
import sys

import pandas as pd

from benchmarks.command import run

ANOMALIB = "import anomalib.data, anomalib.engine, anomalib.models"
NAMES = "import anomalib_dpclip; anomalib_dpclip.DPCLIP; anomalib_dpclip.Surfaces"


def startup(repeats: int = 15) -> pd.DataFrame:
    """Milliseconds that the package adds to imports, in fresh processes, its byte code compiled as pip leaves it.

    Both are timed inside the process, after what they come on top of: whole imports of torch or anomalib differ by more.

    Args:
        repeats: Rounds; one more, untimed, compiles.

    Returns:
        One row an import.
    """
    entry_point = (
        "from importlib.metadata import entry_points;"
        "(own,) = [e for e in entry_points(group='torch.backends') if e.name == 'anomalib_dpclip']"
    )
    rows = {
        "the entry point, beyond `import torch`": (f"import torch; {entry_point}", "own.load()()"),
        "names of anomalib_dpclip, beyond anomalib's own import": (ANOMALIB, NAMES),
    }
    return pd.DataFrame(
        [
            {"import": name, "added, ms": round(statistics.median(_milliseconds(before, timed, repeats)), 2)}
            for name, (before, timed) in rows.items()
        ]
    )


def _milliseconds(before: str, timed: str, repeats: int) -> list[float]:
    code = f"{before}; import time; start = time.perf_counter(); {timed}; print(1000 * (time.perf_counter() - start))"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
    command = [sys.executable, "-W", "ignore", "-c", code]
    values = [
        float(subprocess.run(command, check=True, env=environment, capture_output=True, text=True).stdout)  # noqa: S603
        for _ in range(repeats + 1)
    ]
    return values[1:]


if __name__ == "__main__":
    run(startup)
