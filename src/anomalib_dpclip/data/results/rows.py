"""The files of results: a row an image, read and written one at a time, so that memory does not grow with them."""

import csv
import heapq
import io
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple, TextIO, cast

from anomalib_dpclip.files.atomic_write import atomic_write

logger = logging.getLogger(__name__)

RESULTS = "results.csv"
RESULTS_JSON = "results.json"
"""The same for programs: a list of photos, each with its regions."""

PICTURES = "images"
"""Folder of the pictures beside the results."""

CONTACT_SHEET = "contact_sheet.png"
DONE = "ok"

UNCALIBRATED = "uncalibrated"
"""Label of an image that nothing has set a threshold for."""

SHOWN = 10
"""Photos that a summary names."""


class Result(NamedTuple):
    """A row: what was predicted of an image; empty where something is not known.

    Attributes:
        path: The image.
        score: Image score, in [0, 1] with the threshold at 0.5.
        label: ``normal`` or ``anomalous``.
        status: `DONE`, or why there is no score.
        model: Digest of what predicted it, see `prediction_digest`.
        picture: Its picture, relative to the folder of the results.
        regions: What is called anomalous in it, as JSON, see `Region.as_json`.
        good_below: Share in [0, 1] of the good photos whose score is lower.
        good_photos: How many good photos that is of.
        most_like: File name of the good photo that looks most like it.
    """

    path: str
    score: str
    label: str
    status: str
    model: str
    picture: str = ""
    regions: str = ""
    good_below: str = ""
    good_photos: str = ""
    most_like: str = ""


def read_rows(file: Path) -> Iterator[Result]:
    """Rows of a file, if it is there, but for one that a stopped run left unfinished; a ValueError if it is none of results."""
    if not file.is_file():
        return
    with _open(file, "r") as stream:
        rows = csv.reader(line for line in stream if line[-1] in "\r\n")
        header = next(rows, list(Result._fields))
        if tuple(header) != Result._fields:
            raise ValueError(f"{file} has columns {', '.join(header)}, not those of results: move it away")
        yield from (Result(*row) for row in rows if len(row) == len(header))


def read_parts(folder: Path) -> Iterator[Result]:
    """Rows of a folder, of the files of all processes, each of which is in the order of its paths; raises as `read_rows`."""
    return heapq.merge(*map(read_rows, (folder / RESULTS, *_rank_files(folder))), key=attrgetter("path"))


def holds_results(folder: Path) -> bool:
    """Whether a run has left results in a folder."""
    if not (folder / RESULTS).is_file():
        return False
    with _open(folder / RESULTS, "r") as stream:
        return stream.readline().rstrip() == ",".join(Result._fields)


def write_results(folder: Path, rows: Iterable[Result]) -> None:
    """Write rows in the place of all that the folder has, those of other processes included; and the same as JSON."""
    with atomic_write(folder / RESULTS) as unfinished, _open(unfinished, "w") as stream:
        _write(stream, [Result._fields])
        _write(stream, rows)
    with atomic_write(folder / RESULTS_JSON) as unfinished, _open(unfinished, "w") as stream:
        separator = "[\n"
        numbers = {"score": float, "good_below": float, "good_photos": int}
        for row in read_rows(folder / RESULTS):
            known = {name: kind(getattr(row, name)) if getattr(row, name) else None for name, kind in numbers.items()}
            stream.write(separator + json.dumps(row._asdict() | known | {"regions": json.loads(row.regions or "[]")}))
            separator = ",\n"
        stream.write("\n]\n" if separator == ",\n" else "[]\n")
    for file in _rank_files(folder):
        file.unlink()


def append_rows(folder: Path, rank: int, rows: Iterable[Result]) -> None:
    """Append rows to the file of a process in one write, below a header if it is new."""
    file = folder / (RESULTS if rank == 0 else f"results-rank{rank}.csv")
    text = io.StringIO(newline="")
    _write(text, [] if file.exists() else [Result._fields])
    _write(text, rows)
    with _open(file, "a") as stream:
        stream.write(text.getvalue())


def earlier_rows(folder: Path, model: str) -> Iterator[Result]:
    """Results that a folder has of a model, of each image one, be they in force or set aside; raises as `read_rows`."""
    rows = read_parts(folder) if _other_model(folder, model) is None else read_rows(_aside(folder, model))
    return _first_of_each(row for row in rows if row.status == DONE)


def take_over(folder: Path, model: str) -> None:
    """Leave only the results of a model in a folder; those of another go into a file named by its digest."""
    rows, other = earlier_rows(folder, model), _other_model(folder, model)
    if other is not None:
        write_results(folder, read_parts(folder))
        (folder / RESULTS).rename(_aside(folder, other))
        logger.info("results of another model, class name or setting are now in %s", _aside(folder, other))
    write_results(folder, rows)


def summary(rows: Iterable[Result]) -> str:
    """How many photos there are, how many of them are anomalous, and which could not be read.

    Example:
        >>> summary([Result("a.png", "0.9", "anomalous", "ok", "m"), Result("b.png", "", "", "cannot read image", "m")])
        '2 photos, 1 anomalous, 1 could not be read: b.png'
    """
    total = anomalous = 0
    unread: list[str] = []
    for row in rows:
        total += 1
        anomalous += row.label == "anomalous"
        unread += [] if row.status == DONE else [ascii(row.path)[1:-1]]
    which = f": {', '.join(unread[:SHOWN])}" if unread else ""
    more = f" and {len(unread) - SHOWN} more" if len(unread) > SHOWN else ""
    return f"{total} photos, {anomalous} anomalous, {len(unread)} could not be read{which}{more}"


def _open(file: Path, mode: str) -> TextIO:
    """Open a file of rows: names that are no text come through, and line breaks in names stay as they are."""
    return cast("TextIO", file.open(mode, encoding="utf-8", errors="surrogateescape", newline=""))


def _write(stream: TextIO, rows: Iterable[Sequence[str]]) -> None:
    plain = csv.writer(stream, lineterminator="\n")
    quoted = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)  # a bare carriage return would end the row
    for row in rows:
        (quoted if any("\r" in value for value in row) else plain).writerow(row)


def _rank_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("results-rank*.csv"))


def _first_of_each(rows: Iterable[Result]) -> Iterator[Result]:
    known = set()
    for row in rows:
        if row.path not in known:
            known.add(row.path)
            yield row


def _other_model(folder: Path, model: str) -> str | None:
    """Digest of the model whose results are in force in a folder, if it is not this one."""
    return min({row.model for row in read_parts(folder) if row.status == DONE} - {model}, default=None)


def _aside(folder: Path, model: str) -> Path:
    return folder / f"results-{model}.csv"
