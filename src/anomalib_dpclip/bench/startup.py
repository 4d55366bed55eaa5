"""Start-up: what the entry point adds to `import torch`, and this package to the host's own import."""

import statistics
import subprocess
import sys
import time

import pandas as pd

PAIRS: dict[str, tuple[str, dict[str, str], str, dict[str, str]]] = {
    "names of anomalib_dpclip beyond anomalib.models": (
        "import anomalib.models",
        {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"},
        "import anomalib_dpclip; anomalib_dpclip.DPCLIP; anomalib_dpclip.Surfaces",
        {},
    ),
}


def startup(repeats: int = 15) -> pd.DataFrame:
    """Milliseconds that the package adds to imports, in fresh processes.

    What it adds to `import torch` is its entry point, timed by itself: whole imports of torch differ by more than that.

    Args:
        repeats: Rounds.

    Returns:
        One row an import.
    """
    rows = []
    for name, (without, without_environment, with_, with_environment) in PAIRS.items():
        differences, base = [], []
        for _ in range(repeats):
            first, second = _seconds(without, without_environment), _seconds(with_, with_environment)
            base.append(first)
            differences.append(second - first)
        rows.append(
            {
                "import": name,
                "without, ms": round(1000 * statistics.median(base), 1),
                "added, ms": round(1000 * statistics.median(differences), 1),
            }
        )
    own = _entry_point_milliseconds(repeats)
    rows.append({"import": "the entry point itself", "without, ms": float("nan"), "added, ms": own})
    return pd.DataFrame(rows)


def _seconds(code: str, environment: dict[str, str]) -> float:
    import os

    start = time.perf_counter()
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=os.environ | environment)  # noqa: S603
    return time.perf_counter() - start


def _entry_point_milliseconds(repeats: int) -> float:
    """The entry point's own time, its imports included, inside a process that has just imported torch without it."""
    code = (
        "import torch, time; from importlib.metadata import entry_points;"
        "(own,) = [e for e in entry_points(group='torch.backends') if e.name == 'anomalib_dpclip'];"
        "start = time.perf_counter(); own.load()();"
        "print(1000 * (time.perf_counter() - start))"
    )
    import os

    environment = os.environ | {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    values = [
        float(subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True, text=True).stdout)  # noqa: S603
        for _ in range(repeats)
    ]
    return round(statistics.median(values), 2)
