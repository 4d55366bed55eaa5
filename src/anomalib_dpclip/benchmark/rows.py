"""Benchmark results on disk: one JSON file a job in ``NAME.jobs/``, by which an interrupted run goes on, and what they make.

That is ``NAME.csv``, and beside it ``NAME.images.csv`` (the score of each image) and ``NAME.shift.csv`` (metrics of corrupted
images).
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from anomalib_dpclip.files.atomic_write import atomic_write

_PIXEL_METRICS = ("pixel_AUROC", "pixel_AP", "pixel_AUPRO", "pixel_AUPRO_5", "pixel_F1Max")
METRICS = ("image_AUROC", "image_AP", "image_F1Max", *_PIXEL_METRICS)
"""The field's metrics, in [0, 1]; left empty where undefined."""

OPERATING_POINTS = tuple(f"{name}_{share}" for name in ("fpr_at_fnr", "fnr_at_fpr") for share in (2, 5, 10))
"""False-positive rate where at most 2, 5, 10 % are missed, and the reverse, in [0, 1]; lower is better."""

AT_THRESHOLDS = ("class_F1", "seg_F1", "false_alarm_rate")
"""ClassF1, SegF1 and the share of normal images called anomalous, in [0, 1], at the thresholds in force."""

COSTS = ("images_per_second", "latency_ms", "training_minutes", "peak_memory_mb")
COUNTS = ("normal_images", "anomalous_images")
NUMBERS = (*METRICS, *OPERATING_POINTS, *AT_THRESHOLDS, "guaranteed_rate", *COUNTS, *COSTS)

IDENTITY = ("label", "data_set", "category", "seed", "draw", "accelerator")
"""What a row is of; ``draw`` is empty where no good images are drawn."""

COLUMNS = (
    *("label", "model", "knows", "data_set", "category", "seed", "draw", "accelerator"),
    *COUNTS,
    *("mask_resolution", *METRICS, *OPERATING_POINTS, *AT_THRESHOLDS, "guaranteed_rate", "threshold_basis", "by_defect"),
    *COSTS,
    *("status", "reason", "key"),
)

IMAGE_COLUMNS = ("key", "image", "defect", "label", "score", "called", "true_pixels", "false_pixels", "missed_pixels")

REQUIRED = {"label", "model", "knows", "data_set", "category", "seed", "status", "key", "image_AUROC"}

ALL = "all"
"""Category of a data set that is tested as a whole."""

DONE = "ok"
FAILED = "failed"
LEAK = "leak"
"""Status of a row that tested what its model has learned from: measured, and worth nothing."""
SUPERSEDED = "superseded"
"""Status of a row of a job whose weights, data or settings are others now."""

COMMENT = "# "

SET_ASIDE = "`dpclip benchmark` writes to another --out, or with --fresh sets this file aside"
"""What to do about a file that is in the way."""


class Result(NamedTuple):
    """What a job has to say, as its file holds it: cells by their columns, one dictionary an image and one a corruption."""

    row: dict[str, Any]
    images: Sequence[Mapping[str, Any]] = ()
    shift: Sequence[Mapping[str, Any]] = ()
    root: str = ""  # folder that the images' paths are relative to
    log: str = ""  # traceback of a failure


def jobs_folder(results: Path) -> Path:
    """Where the jobs of a CSV leave their files."""
    return results.with_suffix(".jobs")


def beside(results: Path, what: str) -> Path:
    """A further CSV of the same results, of their ``"images"`` or the ``"shift"``."""
    return results.with_suffix(f".{what}.csv")


def write_result(results: Path, result: Result) -> None:
    """Write a job's file, whole or not at all; corruptions that were measured before stay in it."""
    path = jobs_folder(results) / f"{result.row['key']}.json"
    measured = {each["corruption"] for each in result.shift}
    earlier = _read_result(path).shift if path.exists() else []
    shift = [*(each for each in earlier if each["corruption"] not in measured), *result.shift]
    with atomic_write(path) as unfinished:
        unfinished.write_text(json.dumps(result._replace(shift=shift)._asdict(), indent=1), encoding="utf-8")


def read_results(results: Path) -> list[Result]:
    """All jobs that have left a file."""
    return [_read_result(path) for path in sorted(jobs_folder(results).glob("*.json"))]


def _read_result(path: Path) -> Result:
    try:
        result = Result(**json.loads(path.read_text(encoding="utf-8")))
        result.row["key"], result.row["status"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: not the file of a job, or one of another format; {SET_ASIDE}") from error
    return result


def take_up(results: Path, current: Mapping[tuple[str, ...], str]) -> None:
    """Prepare the files of earlier runs to go on with them.

    What was measured of an earlier state of a job, which has the same `identity_of` and another key, is superseded until that
    is the job's key again; a failure of that kind is forgotten.

    Args:
        results: The CSV.
        current: Key of each job by its identity.

    Raises:
        ValueError: The CSV is not one of benchmark results, or its jobs are not there.
    """
    if results.exists() and len(read_rows(results)) and not jobs_folder(results).is_dir():
        raise ValueError(f"{results}: its rows are made of {jobs_folder(results)}, which is not there; {SET_ASIDE}")
    for result in read_results(results):
        key, status = result.row["key"], result.row["status"]
        owner = current.get(identity_of(result.row))
        if owner not in {None, key} and status not in {DONE, SUPERSEDED}:
            (jobs_folder(results) / f"{key}.json").unlink()
        elif (owner == key and status == SUPERSEDED) or (owner not in {None, key} and status == DONE):
            write_result(results, result._replace(row=result.row | {"status": DONE if owner == key else SUPERSEDED}))


def write_tables(results: Path, provenance: Mapping[str, str], order: Sequence[str] = ()) -> pd.DataFrame:
    """Write the CSV files of all jobs so far, those of some keys last and in their order, and return the rows.

    The ``provenance`` becomes comments above the columns of a new file.
    """
    head = read_provenance(results) if results.exists() else [f"{k}: {' '.join(v.split())}" for k, v in provenance.items()]
    place = {key: number for number, key in enumerate(order)}
    jobs = sorted(read_results(results), key=lambda job: place.get(job.row["key"], -1))
    rows = _typed(pd.DataFrame([job.row for job in jobs], columns=list(COLUMNS), dtype=object))
    rows.loc[rows["status"] == SUPERSEDED, "reason"] = "its weights, data or settings have changed since"
    _write_csv(results, rows, head)
    for what, columns in (("images", list(IMAGE_COLUMNS)), ("shift", None)):
        records = [{"key": job.row["key"], **record} for job in jobs for record in getattr(job, what)]
        if records:
            _write_csv(beside(results, what), pd.DataFrame(records, columns=columns), [])
        else:  # without a record there are no columns, without which it could not be read
            beside(results, what).unlink(missing_ok=True)
    return rows


def identity_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What a row is of, as text."""
    return tuple(str(row[name]) for name in IDENTITY)


def title_of(row: Mapping[str, Any]) -> str:
    """What a row is of, for people."""
    name = " / ".join(str(row[each]) for each in ("label", "data_set", "category"))
    return f"{name} / seed {row['seed']}" + (f" / draw {row['draw']}" if row["draw"] else "")


def _write_csv(path: Path, table: pd.DataFrame, head: Sequence[str]) -> None:
    with atomic_write(path) as unfinished:
        comments = "".join(f"{COMMENT}{line}\n" for line in head)
        unfinished.write_text(comments + table.to_csv(index=False, lineterminator="\n"), encoding="utf-8", newline="")


def set_aside(results: Path) -> None:
    """Give a CSV and all that lies beside it another name, the first of ``name-1``, ``name-2``, ... that is free."""
    suffixes = (".csv", ".images.csv", ".shift.csv", ".draws.json", ".jobs")
    stems = (f"{results.stem}-{number}" for number in itertools.count(1))
    free = next(stem for stem in stems if not any(results.with_name(stem + suffix).exists() for suffix in suffixes))
    for suffix in suffixes:
        path = results.with_name(results.stem + suffix)
        if path.exists():
            path.rename(results.with_name(free + suffix))


def read_rows(*paths: Path) -> pd.DataFrame:
    """Rows of one or more results files, the last one of each job, with all `COLUMNS`; what a file lacks is empty.

    A file that is not there, or not one of benchmark results, is named with the remedy.
    """
    return pd.concat(map(_read, paths), ignore_index=True).drop_duplicates("key", keep="last", ignore_index=True)


def read_beside(results: Path, what: str) -> pd.DataFrame:
    """Rows of ``NAME.images.csv`` or ``NAME.shift.csv``; none where there is no such file."""
    path = beside(results, what)
    if not path.exists():
        return pd.DataFrame(columns=list(IMAGE_COLUMNS) if what == "images" else ["key"])
    table = pd.read_csv(path, dtype={"key": str, "image": str, "defect": str}, keep_default_na=False, na_values=[""])
    missing = ({"key", "image", "score"} if what == "images" else {"key", "corruption"}) - set(table.columns)
    if missing:
        raise ValueError(f"{path}: a file of another format, it lacks the columns {sorted(missing)}; {SET_ASIDE}")
    return table


def read_provenance(path: Path) -> list[str]:
    """The comments above a file's columns: command, commit, versions and machine of the run that started it."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return [line.removeprefix(COMMENT).strip() for line in itertools.takewhile(lambda line: line.startswith(COMMENT), file)]


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such results file; `dpclip benchmark --config CONFIG --out {path}` writes one")
    try:
        table = pd.read_csv(
            path,
            skiprows=len(read_provenance(path)),
            dtype={name: str for name in COLUMNS if name not in NUMBERS},
            keep_default_na=False,  # only an empty cell is undefined: a category may well be called "NA"
            na_values=dict.fromkeys(NUMBERS, ""),
        )
    except ValueError as error:  # of pandas, or of decoding
        raise ValueError(f"{path}: not a CSV of benchmark results ({error})") from error
    missing = REQUIRED - set(table.columns)
    if missing:
        raise ValueError(f"{path}: not a CSV of benchmark results, it lacks the columns {sorted(missing)}; {SET_ASIDE}")
    try:
        rows = _typed(table)
        for cell in filter(None, rows["by_defect"]):
            dict(json.loads(cell))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: a file of another format ({error}); {SET_ASIDE}") from error
    return rows


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """All columns, numbers as numbers and everything else as text."""
    table = table.reindex(columns=list(COLUMNS))
    text = [name for name in COLUMNS if name not in NUMBERS]
    numbers = table[list(NUMBERS)].astype(float).astype(dict.fromkeys(COUNTS, "Int64"))
    return pd.concat([table[text].astype(object).where(table[text].notna(), "").astype(str), numbers], axis=1)[list(COLUMNS)]
