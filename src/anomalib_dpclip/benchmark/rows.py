"""Benchmark results on disk: one CSV row a job, appended when the job ends, safe to interrupt and to go on with."""

import csv
import hashlib
import io
import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

METRICS = ("image_AUROC", "image_AP", "image_F1Max", "pixel_AUROC", "pixel_AP", "pixel_AUPRO", "pixel_F1Max")
"""The field's metrics, in [0, 1]; left empty where undefined."""

COSTS = ("images_per_second", "training_minutes", "peak_memory_mb")
"""Throughput of the test run, wall time of training, and the GPU's (else the process's) peak memory in MiB."""

COLUMNS = (
    "label",
    "model",
    "data_set",
    "category",
    "seed",
    "accelerator",
    *METRICS,
    *COSTS,
    "status",
    "reason",
    "key",
)

ALL = "all"
"""Category of a data set that is tested as a whole."""

DONE = "ok"
FAILED = "failed"

COMMENT = "# "


def row_key(*parts: Any) -> str:
    """Short hash of what a job runs (JSON-like values): the same in a later run, another once the job has changed."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def open_rows(path: Path, provenance: Mapping[str, str]) -> None:
    """Make a results file ready to append to: start it, or cut off a half-written last row.

    Args:
        path: The file.
        provenance: How its rows are made, written as comments above the columns of a new file.

    Raises:
        ValueError: The file has other columns.
    """
    if not path.exists() or not path.stat().st_size:
        path.parent.mkdir(parents=True, exist_ok=True)
        comments = [f"{COMMENT}{name}: {' '.join(value.split())}\n" for name, value in provenance.items()]
        _append(path, "".join([*comments, _line(COLUMNS)]))
        return
    with path.open("rb+") as file:
        complete = file.read().rpartition(b"\n")
        rows = [line for line in complete[0].split(b"\n") if not line.startswith(COMMENT.encode())]
        if not rows or rows[0].decode(errors="replace") + "\n" != _line(COLUMNS):
            msg = f"{path}: not the columns of benchmark results; start over with --fresh, or name another --out"
            raise ValueError(msg)
        file.truncate(len(complete[0]) + 1)


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append one row; columns that it lacks stay empty.

    Raises:
        ValueError: The row has a column that the file has not.
    """
    unknown = set(row) - set(COLUMNS)
    if unknown:
        msg = f"no such columns in benchmark results: {sorted(unknown)}"
        raise ValueError(msg)
    _append(path, _line([_cell(row.get(name)) for name in COLUMNS]))


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    # A row is a line, also one with a reason of several: a cut-off one can then be told by its missing end.
    return " ".join(value.split()) if isinstance(value, str) else value


def _line(cells: Sequence[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _append(path: Path, text: str) -> None:
    """One write, flushed to disk: parallel jobs do not mix, and a crash costs the last line at most."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, text.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_rows(*paths: Path) -> pd.DataFrame:
    """Rows of one or more results files, the last one of each job (a repaired job follows its failure).

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: A file is not one of benchmark results.
    """
    tables = [_read(path) for path in paths]
    return pd.concat(tables, ignore_index=True).drop_duplicates("key", keep="last", ignore_index=True)


def read_provenance(path: Path) -> list[str]:
    """The comments above a file's columns: command, commit, versions and machine of the run that started it."""
    with path.open(encoding="utf-8") as file:
        return [line.removeprefix(COMMENT).strip() for line in itertools.takewhile(_is_comment, file)]


def _is_comment(line: str) -> bool:
    return line.startswith(COMMENT)


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        msg = f"{path}: no such results file; `dpclip benchmark --config CONFIG --out {path}` writes one"
        raise FileNotFoundError(msg)
    numbers = (*METRICS, *COSTS)
    try:
        # Whole lines only: the last row may be being written just now.
        lines = path.read_text(encoding="utf-8").rpartition("\n")[0].split("\n")
        table = pd.read_csv(
            io.StringIO("\n".join(itertools.dropwhile(_is_comment, lines))),
            dtype={name: str for name in COLUMNS if name not in numbers},
            keep_default_na=False,  # only an empty metric is undefined: a category may well be called "NA"
            na_values=dict.fromkeys(numbers, ""),
        )
    except ValueError as error:  # of pandas and of decoding
        msg = f"{path}: not a CSV of benchmark results ({error})"
        raise ValueError(msg) from error
    if missing := set(COLUMNS) - set(table.columns):
        msg = f"{path}: not a CSV of benchmark results, it lacks the columns {sorted(missing)}"
        raise ValueError(msg)
    return table[list(COLUMNS)]
