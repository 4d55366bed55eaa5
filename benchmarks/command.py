"""The command line of every measurement: `python -m benchmarks.training --backbone mini` and the like."""

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from jsonargparse import ArgumentParser

from anomalib_dpclip.files.atomic_write import atomic_write
from benchmarks.results import table_of, write_results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = Path("benchmark_results")


def run(
    measure: Callable[..., pd.DataFrame],
    chart: "Callable[[pd.DataFrame], Figure] | None" = None,
    arguments: Sequence[str] | None = None,
) -> None:
    """Measure with the arguments of the command line, which are those of the function; write the results and print them.

    The files are called as the function, ``training.csv`` and ``training.md``, and as the backbone where one is named that is
    not the function's own: ``training-mini.csv``.

    Args:
        measure: A module's measurement, called as the module.
        chart: What to draw of it, if anything.
        arguments: Instead of those of the command line.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    module = f"benchmarks.{measure.__name__}"
    parser = ArgumentParser(prog=f"python -m {module}", description=(measure.__doc__ or "").partition("\n")[0])
    parser.add_function_arguments(measure)
    parser.add_argument("--out", type=Path, default=RESULTS, help="Folder of the results.")
    values = parser.parse_args(words).as_dict()
    out = values.pop("out")
    table = measure(**values)
    is_own = values.get("backbone") == parser.get_defaults().get("backbone")
    name = measure.__name__ if is_own else f"{measure.__name__}-{values['backbone']}"
    write_results(table, out, name, shlex.join(["python", "-m", module, *words]))
    if chart is not None:
        with atomic_write(out / f"{name}.png") as unfinished:
            chart(table).savefig(unfinished)
    print(table_of(table))  # noqa: T201  (the command's answer)
