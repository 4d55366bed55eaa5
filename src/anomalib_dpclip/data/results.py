"""Predictions in a CSV file that grows with them: a run that is stopped leaves it, and a later one goes on from it."""

import csv
import io
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from anomalib.data import ImageBatch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from anomalib_dpclip.data.images import ImageReadError, read_image
from anomalib_dpclip.data.regions import batch_regions, regions_as_text, regions_from_text
from anomalib_dpclip.files.atomic_write import atomic_write

logger = logging.getLogger(__name__)

RESULTS = "results.csv"
RESULTS_JSON = "results.json"
"""The same for programs: a list of photos, each with its regions."""

PICTURES = "images"
"""Folder of the pictures beside the results."""

CONTACT_SHEET = "contact_sheet.png"
DONE = "ok"


class Result(NamedTuple):
    """A row: what was predicted of an image.

    Attributes:
        path: The image.
        score: Image score, in [0, 1] with the threshold at 0.5; empty where there is none.
        label: ``normal`` or ``anomalous``; empty where there is none.
        status: `DONE`, or why there is no score.
        model: Digest of what predicted it, see `model_digest`.
        picture: Its picture, relative to the folder of the results; empty where there is none.
        regions: What is called anomalous in it, see `regions_as_text`; empty where there is nothing.
    """

    path: str
    score: str
    label: str
    status: str
    model: str
    picture: str = ""
    regions: str = ""


_HEADERS = (Result._fields, Result._fields[:-1], Result._fields[:-2])
"""The last two are those of earlier versions, which had no regions, and named no picture."""


def read_results(folder: Path) -> dict[str, Result]:
    """Read the results of all processes, by path; a line that a stopped run left unfinished is left out.

    Args:
        folder: Folder of the results.

    Raises:
        ValueError: If a file there is none of results.
    """
    results: dict[str, Result] = {}
    for file in (folder / RESULTS, *_rank_files(folder)):
        results |= _read(file)
    return results


def holds_results(folder: Path) -> bool:
    """Whether a run has left results in a folder."""
    file = folder / RESULTS
    if not file.is_file():
        return False
    with file.open(encoding="utf-8", errors="surrogateescape") as stream:
        return stream.readline().rstrip("\n") in map(",".join, _HEADERS)


def set_aside(folder: Path, model: str) -> Path:
    """Put the results of an earlier model, of all processes, into a file named by its digest.

    Args:
        folder: Folder of the results.
        model: Digest of the model that predicted them.

    Returns:
        The file.
    """
    write_results(folder, read_results(folder).values())
    return (folder / RESULTS).rename(_file_of(folder, model))


def take_up(folder: Path, model: str) -> dict[str, Result]:
    """Results of a model that were set aside, by path; empty if there are none."""
    return _read(_file_of(folder, model))


def write_results(folder: Path, results: Iterable[Result]) -> None:
    """Write results in the place of all that the folder has, those of other processes included; and the same as JSON."""
    rows = sorted(results)
    with atomic_write(folder / RESULTS) as unfinished:
        _append(unfinished, rows)
    with atomic_write(folder / RESULTS_JSON) as unfinished:
        unfinished.write_text(json.dumps([_as_json(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    for file in _rank_files(folder):
        file.unlink()


def summary(results: Iterable[Result]) -> str:
    """How many photos there are, how many of them are anomalous, and which could not be read.

    Example:
        >>> summary([Result("a.png", "0.9", "anomalous", "ok", "m"), Result("b.png", "", "", "cannot read image", "m")])
        '2 photos, 1 anomalous, 1 could not be read: b.png'
    """
    rows = list(results)
    anomalous = sum(row.label == "anomalous" for row in rows)
    unread = [ascii(row.path)[1:-1] for row in rows if row.status != DONE]
    named = f": {', '.join(unread)}" if unread else ""
    return f"{len(rows)} photos, {anomalous} anomalous, {len(unread)} could not be read{named}"


class ResultsWriter(BasePredictionWriter):
    """Appends a row an image, with several processes each to its own file, merged at the end.

    A batch's rows are written after the next batch: until then its pictures are drawn, which its rows name.

    Args:
        folder: Folder of the results. The first process writes `RESULTS`, the others ``results-rank<N>.csv``.
        paths: The images, by their index in the data set: those that no batch holds could not be read.
        model: Digest that the rows bear.
        listener: Is given the rows of each batch too.
    """

    def __init__(
        self, folder: Path, paths: Sequence[str], model: str, listener: Callable[[Sequence[Result]], None] | None = None
    ) -> None:
        super().__init__("batch")
        self.folder, self.paths, self.model, self.listener = folder, paths, model, listener
        self._held: list[Result] = []

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the rows of the batch before."""
        del prediction, batch_idx, dataloader_idx
        self._write_held(trainer)
        self._held = self._predicted(batch, getattr(pl_module, "min_area", 0))
        found = {row.path for row in self._held}
        self._held += [self._unreadable(path) for path in map(self.paths.__getitem__, batch_indices or ()) if path not in found]

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the rows of what was judged before a run was stopped."""
        del pl_module, exception
        self._write_held(trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Merge the files of all processes; those on disks that the first process cannot see stay where they are."""
        del pl_module
        self._write_held(trainer)
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            results = read_results(self.folder)
            write_results(self.folder, results.values())
            if self.listener is None:
                print(summary(results.values()))  # noqa: T201  (the answer to the command)

    def _write_held(self, trainer: Trainer) -> None:
        if not self._held:
            return
        callbacks: Any = trainer.callbacks  # type: ignore[attr-defined]  # Lightning's trainer has them
        pictures: Mapping[str, Path] = next((each.pictures for each in callbacks if hasattr(each, "pictures")), {})
        rows = [
            row._replace(picture=os.path.relpath(pictures[row.path], self.folder)) if row.path in pictures else row
            for row in self._held
        ]
        rank = trainer.global_rank
        _append(self.folder / (RESULTS if rank == 0 else f"results-rank{rank}.csv"), rows)
        self._held = []
        if self.listener is not None:
            self.listener(rows)

    def _predicted(self, batch: ImageBatch, min_area: int) -> list[Result]:
        paths = batch.image_path or []
        scores = (
            [""] * len(paths) if batch.pred_score is None else [f"{score:.6f}" for score in batch.pred_score.flatten().tolist()]
        )
        labels = [""] * len(paths)
        if batch.pred_label is not None:
            labels = ["anomalous" if label else "normal" for label in batch.pred_label.flatten().tolist()]
        decided = zip(paths, scores, labels, batch_regions(batch, min_area), strict=True)
        return [
            Result(path, score, label, DONE, self.model, regions=regions_as_text(regions))
            for path, score, label, regions in decided
        ]

    def _unreadable(self, path: str) -> Result:
        """A row for an image that the data set left out: reading it once more tells why."""
        try:
            read_image(path)
            reason = f"cannot read image {path}: it was being written, run again for it"
        except ImageReadError as error:
            reason = str(error)
        logger.warning("%s; going on without it", reason)
        return Result(path, "", "", reason, self.model)


def _as_json(row: Result) -> dict[str, Any]:
    regions = [
        {"box": [left, top, right, bottom], "score": score, "area": area}
        for left, top, right, bottom, score, area in regions_from_text(row.regions)
    ]
    return row._asdict() | {"score": float(row.score) if row.score else None, "regions": regions}


def _rank_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("results-rank*.csv"))


def _file_of(folder: Path, model: str) -> Path:
    return folder / f"results-{model}.csv"


def _read(file: Path) -> dict[str, Result]:
    """Read one file of results, if it is there.

    Raises:
        ValueError: If it is none of results.
    """
    if not file.is_file():
        return {}
    # Line breaks as they are: a file name may hold any of them.
    with file.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        text = stream.read()
    header, *rows = [*csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))] or [[]]
    if header and tuple(header) not in _HEADERS:
        raise ValueError(f"{file} has columns {', '.join(header)}, not those of results: move it away")
    return {row[0]: Result(*row) for row in rows if len(row) == len(header)}


def _append(file: Path, rows: Iterable[Result]) -> None:
    """Append rows in one write, below a header if the file is new."""
    text = io.StringIO(newline="")
    plain = csv.writer(text, lineterminator="\n")
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)  # a bare carriage return would end the row
    if not file.exists():
        plain.writerow(Result._fields)
    for row in rows:
        (quoted if any("\r" in value for value in row) else plain).writerow(row)
    with file.open("a", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        stream.write(text.getvalue())
