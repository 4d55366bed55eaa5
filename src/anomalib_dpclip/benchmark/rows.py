"""Benchmark results on disk: one CSV row a job, appended when the job ends, safe to interrupt and to go on with.

A row is a line. One that was cut short, by a full disk or a killed process, stays a line of its own: it is passed over,
and its job counts as not done.
"""

import csv
import hashlib
import io
import itertools
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from anomalib_dpclip.benchmark.knowledge import assumed_knowledge
from anomalib_dpclip.files.atomic_write import atomic_write

logger = logging.getLogger(__name__)

METRICS = ("image_AUROC", "image_AP", "image_F1Max", "pixel_AUROC", "pixel_AP", "pixel_AUPRO", "pixel_F1Max")
"""The field's metrics, in [0, 1]; left empty where undefined."""

LINE_METRICS = ("overkill_at_2", "overkill_at_5", "overkill_at_10", "escape_at_2", "escape_at_5", "escape_at_10")
"""Figures of a line, in [0, 1], lower is better; left empty where undefined, and in rows from before they were measured."""

COSTS = ("images_per_second", "training_minutes", "peak_memory_mb")
"""Throughput of the test run, wall time of training, and peak memory in MiB as `PeakMemory` has it."""

COLUMNS = (
    "label",
    "model",
    "knows",
    "data_set",
    "category",
    "seed",
    "accelerator",
    *METRICS,
    *LINE_METRICS,
    *COSTS,
    "status",
    "reason",
    "key",
)

ADDED_LATER = {"knows", *LINE_METRICS}
"""Columns that files of earlier versions lack."""

ALL = "all"
"""Category of a data set that is tested as a whole."""

DONE = "ok"
FAILED = "failed"
LEAK = "leak"
"""Status of a row that tested what its model has learned from: measured, and worth nothing."""

COMMENT = "# "

# Behind a row that was cut: it then has too many columns wherever the cut is, or ends within quotes.
_CUT_MARK = "," * len(COLUMNS) + "\n"


def row_key(*parts: Any) -> str:
    """Short hash of what a job runs (JSON-like values): the same in a later run, another once the job has changed."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def open_rows(path: Path, provenance: Mapping[str, str]) -> None:
    """Make a results file ready to append to: start it, or take out what is left of rows that were cut short.

    A file of an earlier version is given the columns that it lacks, empty.

    Args:
        path: The file.
        provenance: How its rows are made, written as comments above the columns of a new file.

    Raises:
        ValueError: The file has other columns.
    """
    if not path.exists() or not path.stat().st_size:
        comments = [f"{COMMENT}{name}: {' '.join(value.split())}\n" for name, value in provenance.items()]
        _write(path, [*comments, _line(COLUMNS)])
        return
    lines = path.read_bytes().decode(errors="replace").splitlines(keepends=True)
    heading = list(itertools.takewhile(_is_comment, lines))
    columns, rows = lines[len(heading) : len(heading) + 1], lines[len(heading) + 1 :]
    names = _names("".join(columns))
    if not _are_ours(names):
        msg = (
            f"{path}: not the columns of benchmark results; name another --out, or start over with --fresh, which sets this "
            f"file aside"
        )
        raise ValueError(msg)
    whole = [row for row in rows if _is_whole(row, len(names))]
    if len(whole) < len(rows):
        logger.warning("%s: took out %d rows that were cut short; their jobs are run again", path, len(rows) - len(whole))
    if len(whole) < len(rows) or names != list(COLUMNS):
        cells = (dict(zip(names, next(csv.reader([row])), strict=True)) for row in whole)
        _write(path, [*heading, _line(COLUMNS), *(_line([row.get(name, "") for name in COLUMNS]) for row in cells)])


def _names(line: str) -> list[str]:
    return next(csv.reader([line]), [])


def _are_ours(names: Sequence[str]) -> bool:
    """Whether names are the columns, or those of an earlier version, in any order."""
    return len(set(names)) == len(names) and set(COLUMNS) - ADDED_LATER <= set(names) <= set(COLUMNS)


def set_aside(path: Path) -> Path | None:
    """Give a file another name, the first of ``name-1.csv``, ``name-2.csv``, ... that is free.

    Returns:
        The new path; ``None`` if there was no such file.
    """
    if not path.exists():
        return None
    names = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(1))
    return path.rename(next(name for name in names if not name.exists()))


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


def _write(path: Path, lines: Sequence[str]) -> None:
    with atomic_write(path) as unfinished:
        unfinished.write_text("".join(lines), encoding="utf-8", newline="")


def _append(path: Path, text: str) -> None:
    """Append a line, flushed to disk: parallel jobs do not mix, and a crash or a full disk costs this line at most."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        if os.fstat(descriptor).st_size:
            os.lseek(descriptor, -1, os.SEEK_END)
            text = text if os.read(descriptor, 1) == b"\n" else _CUT_MARK + text
        left = text.encode()
        while left:  # a disk that is nearly full takes a part, and raises when it is asked to take the rest
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_whole(line: str, columns: int) -> bool:
    """Whether a line is a whole row."""
    try:
        (cells,) = csv.reader([line], strict=True)
    except csv.Error:  # it ends within quotes
        return False
    return line.endswith("\n") and len(cells) == columns


def read_rows(*paths: Path) -> pd.DataFrame:
    """Rows of one or more results files, the last one of each job (a repaired job follows its failure).

    Of files of earlier versions the metrics that they lack are undefined, and what models know is what they did know then.

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
    numbers = (*METRICS, *LINE_METRICS, *COSTS)
    try:
        text = path.read_text(encoding="utf-8")
        columns, *rows = itertools.dropwhile(_is_comment, text.splitlines(keepends=True))
        # Whole lines only: others were cut short, or the last row is being written just now.
        number = len(_names(columns))
        table = pd.read_csv(
            io.StringIO("".join([columns, *(row for row in rows if _is_whole(row, number))])),
            dtype={name: str for name in COLUMNS if name not in numbers},
            keep_default_na=False,  # only an empty metric is undefined: a category may well be called "NA"
            na_values=dict.fromkeys(numbers, ""),
        )
    except ValueError as error:  # of pandas, of decoding, or no line at all
        msg = f"{path}: not a CSV of benchmark results ({error})"
        raise ValueError(msg) from error
    missing = set(COLUMNS) - ADDED_LATER - set(table.columns)
    if missing:
        msg = f"{path}: not a CSV of benchmark results, it lacks the columns {sorted(missing)}"
        raise ValueError(msg)
    table = table.reindex(columns=COLUMNS)
    known = table["knows"].astype(object)
    return table.assign(knows=known.where(known.notna() & (known != ""), table["model"].map(assumed_knowledge)))
