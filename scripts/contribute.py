"""Adapters to share, from nothing: train on a labelled set, test on another, and write file and card.

    python -m scripts.contribute VisA

Run again after an interruption, it goes on where it stopped.
"""

import argparse
import sys
from pathlib import Path

from anomalib_dpclip.adapter_files.command import adapters
from anomalib_dpclip.benchmark.command import benchmark

CONFIGS = {"VisA": "mvtec", "MVTecAD": "visa", "Surfaces": "surfaces"}
"""Benchmark config that learns from each auxiliary set, and tests on another."""

OUT = Path("runs/contribute")


def contribute(auxiliary: str, folder: Path = OUT) -> Path:
    """Train, test, and write ``<auxiliary>.safetensors`` with its card, ``<auxiliary>.md``.

    Args:
        auxiliary: Set to learn from, one of `CONFIGS`.
        folder: Where to.

    Returns:
        The file of the adapters.

    Raises:
        RuntimeError: If a category could not be tested; the CSV says why.
    """
    rows = folder / f"{auxiliary}.csv"
    if benchmark(Path("configs/benchmark") / f"{CONFIGS[auxiliary]}.yaml", rows):
        raise RuntimeError(f"not everything could be tested: {rows} says why")
    (trained,) = rows.with_suffix(".jobs").glob("*.safetensors")
    file = rows.with_suffix(".safetensors")
    adapters(trained, to=file, card=True, metrics=rows)
    return file


def main() -> None:
    """Do it, and say what comes next."""
    parser = argparse.ArgumentParser(description="Train, test and describe adapters to share.")
    parser.add_argument("auxiliary", choices=sorted(CONFIGS))
    file = contribute(parser.parse_args().auxiliary)
    sys.stdout.write(f"Look at {file.with_suffix('.md')}, then: dpclip adapters {file} --metrics ... --push owner/name\n")


if __name__ == "__main__":
    main()
