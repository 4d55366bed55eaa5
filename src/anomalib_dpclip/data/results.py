"""Predictions in a CSV file that grows with them: a run that is stopped leaves it, and a later one goes on from it."""

import csv
import hashlib
import io
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from anomalib.data import ImageBatch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from anomalib_dpclip.data.images import ImageReadError, read_image
from anomalib_dpclip.files.atomic_write import atomic_write

logger = logging.getLogger(__name__)

RESULTS = "results.csv"
DONE = "ok"


class Result(NamedTuple):
    """A row: what was predicted of an image.

    Attributes:
        path: The image.
        score: Image score, in [0, 1] with the threshold at 0.5; empty where there is none.
        label: ``normal`` or ``anomalous``; empty where there is none.
        status: `DONE`, or why there is no score.
        model: Digest of what predicted it, see `model_digest`.
    """

    path: str
    score: str
    label: str
    status: str
    model: str


def read_results(folder: Path) -> dict[str, Result]:
    """Read the results of all processes, by path; a line that a stopped run left unfinished is left out.

    Args:
        folder: Folder of the results.

    Raises:
        ValueError: If a file there is none of results.
    """
    results: dict[str, Result] = {}
    for file in (folder / RESULTS, *_rank_files(folder)):
        if file.is_file():
            text = file.read_text(encoding="utf-8", errors="surrogateescape")
            header, *rows = csv.reader(io.StringIO(text[: text.rfind("\n") + 1])) or [[]]
            if header and tuple(header) != Result._fields:
                raise ValueError(f"{file} has columns {', '.join(header)}, not those of results: move it away")
            results |= {row[0]: Result(*row) for row in rows if len(row) == len(Result._fields)}
    return results


def write_results(folder: Path, results: Iterable[Result]) -> None:
    """Write results in the place of all that the folder has, those of other processes included."""
    with atomic_write(folder / RESULTS) as unfinished:
        _append(unfinished, sorted(results))
    for file in _rank_files(folder):
        file.unlink()


def model_digest(model: LightningModule, data: Mapping[str, Any]) -> str:
    """Digest of everything predictions depend on: weights, text anchors, calibration and settings.

    Args:
        model: The model.
        data: Settings of the data module that change predictions.
    """
    post_processor = getattr(model, "post_processor", None)
    settings = [
        dict(model.hparams),
        post_processor.checkpoint_config() if post_processor is not None else {},
        dict(data),
    ]
    # What the model judges by beside its weights may only be fetched when the run starts.
    references = getattr(model, "reference_digest", lambda: None)()
    if references is not None:
        settings.append({"references": references})
    # Objects count by their class: their addresses differ from run to run.
    plain = json.dumps(settings, sort_keys=True, default=lambda value: type(value).__name__)
    digest = hashlib.sha256(plain.encode())
    for name, value in model.state_dict().items():
        if isinstance(value, torch.Tensor):
            digest.update(name.encode())
            digest.update(value.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


class ResultsWriter(BasePredictionWriter):
    """Appends a row an image after each batch; with several processes each has its own file, merged at the end.

    Args:
        folder: Folder of the results. The first process writes `RESULTS`, the others ``results-rank<N>.csv``.
        paths: The images, by their index in the data set: those that no batch holds could not be read.
        model: Digest that the rows bear.
    """

    def __init__(self, folder: Path, paths: Sequence[str], model: str) -> None:
        super().__init__("batch")
        self.folder, self.paths, self.model = folder, paths, model

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
        """Write a batch's rows."""
        del pl_module, prediction, batch_idx, dataloader_idx
        rows = self._predicted(batch)
        found = {row.path for row in rows}
        rows += [self._unreadable(path) for path in map(self.paths.__getitem__, batch_indices or ()) if path not in found]
        rank = trainer.global_rank
        _append(self.folder / (RESULTS if rank == 0 else f"results-rank{rank}.csv"), rows)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Merge the files of all processes; those on disks that the first process cannot see stay where they are."""
        del pl_module
        trainer.strategy.barrier()
        if trainer.is_global_zero and _rank_files(self.folder):
            write_results(self.folder, read_results(self.folder).values())

    def _predicted(self, batch: ImageBatch) -> list[Result]:
        paths = batch.image_path or []
        scores = [""] * len(paths) if batch.pred_score is None else [f"{score:.6f}" for score in batch.pred_score.tolist()]
        labels = [""] * len(paths)
        if batch.pred_label is not None:
            labels = ["anomalous" if label else "normal" for label in batch.pred_label.tolist()]
        return [Result(*row, DONE, self.model) for row in zip(paths, scores, labels, strict=True)]

    def _unreadable(self, path: str) -> Result:
        """A row for an image that the data set left out: reading it once more tells why."""
        try:
            read_image(path)
            reason = f"cannot read image {path}: it was being written, run again for it"
        except ImageReadError as error:
            reason = str(error)
        logger.warning("%s; going on without it", reason)
        return Result(path, "", "", reason, self.model)


def _rank_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("results-rank*.csv"))


def _append(file: Path, rows: Iterable[Result]) -> None:
    """Append rows in one write, below a header if the file is new."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if not file.exists():
        writer.writerow(Result._fields)
    writer.writerows(rows)
    with file.open("a", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        stream.write(text.getvalue())
