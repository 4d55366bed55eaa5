"""The callback that adds what is predicted to the results, batch by batch."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from anomalib.data import ImageBatch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from anomalib_dpclip.data.images import ImageReadError
from anomalib_dpclip.data.regions import batch_regions
from anomalib_dpclip.data.results import rows as result_files
from anomalib_dpclip.data.results.rows import DONE, UNCALIBRATED, Result

logger = logging.getLogger(__name__)


Listener: TypeAlias = Callable[[Sequence[Result]], None]

_NO_PREDICTION = ("num_workers",)
"""Hyper-parameters that change no prediction."""


def prediction_digest(model: Any, images: Sequence[str], settings: Mapping[str, Any]) -> str:
    """Digest of everything that predictions of images depend on: they are comparable where it is the same.

    That is what a model's own method of this name says, or its weights and hyper-parameters, and the settings of the run.
    """
    if hasattr(model, "prediction_digest"):
        known = model.prediction_digest(images)
    else:
        weights = hashlib.sha256()
        for name, value in model.state_dict().items():
            if isinstance(value, torch.Tensor):
                weights.update(name.encode() + value.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        known = [weights.hexdigest(), {name: value for name, value in model.hparams.items() if name not in _NO_PREDICTION}]
    # Objects count by their class: their addresses differ from run to run.
    plain = json.dumps([known, dict(settings)], sort_keys=True, default=lambda value: type(value).__name__)
    return hashlib.sha256(plain.encode()).hexdigest()[:12]


class ResultsWriter(BasePredictionWriter):
    """Appends a row an image to the results in a folder, with several processes each to its own file, merged at the end.

    A batch's rows are written after the next batch: until then its pictures are drawn, which its rows name.

    Args:
        folder: Folder of the results.
        paths: The images, by their index in the data set: those that no batch holds could not be read.
        model: Digest that the rows bear.
        read_image: Reads an image as the data set does, to tell why one could not be read.
        listener: Is given the rows of each batch too.
    """

    def __init__(
        self, folder: Path, paths: Sequence[str], model: str, read_image: Callable[[str], object], listener: Listener | None
    ) -> None:
        super().__init__("batch")
        self.folder, self.paths, self.model, self.read_image, self.listener = folder, paths, model, read_image, listener
        self._held: list[Result] = []

    def write_on_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, _: Any, batch_indices: Any, batch: ImageBatch, *__: int
    ) -> None:
        """Write the rows of the batch before."""
        self._write_held(trainer)
        self._held = self._predicted(batch, pl_module)
        found = {row.path for row in self._held}
        self._held += [self._unreadable(path) for path in map(self.paths.__getitem__, batch_indices or ()) if path not in found]

    def on_exception(self, trainer: Trainer, *_: Any) -> None:
        """Write the rows of what was predicted before a run was stopped."""
        self._write_held(trainer)

    def on_predict_end(self, trainer: Trainer, *_: Any) -> None:
        """Merge the files of all processes; those on disks that the first process cannot see stay where they are."""
        self._write_held(trainer)
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            result_files.write_results(self.folder, result_files.read_parts(self.folder))
            if self.listener is None:
                print(result_files.summary(result_files.read_rows(self.folder / result_files.RESULTS)))  # noqa: T201  (the answer to the command)

    def _write_held(self, trainer: Trainer) -> None:
        if not self._held:
            return
        callbacks: Any = trainer.callbacks  # type: ignore[attr-defined]  # Lightning's trainer has them
        drawn: Mapping[str, Path] = next((each.pictures for each in callbacks if hasattr(each, "pictures")), {})
        pictures = [os.path.relpath(drawn[row.path], self.folder) if row.path in drawn else "" for row in self._held]
        rows = [row._replace(picture=picture) for row, picture in zip(self._held, pictures, strict=True)]
        result_files.append_rows(self.folder, trainer.global_rank, rows)
        self._held = []
        if self.listener is not None:
            self.listener(rows)

    def _predicted(self, batch: ImageBatch, module: Any) -> list[Result]:
        """Rows of a batch, with what only DP-CLIP knows where the module is one."""
        paths = batch.image_path or []
        found = batch_regions(batch, getattr(module, "min_area", 0))
        most_like = module.most_like(batch.image) if hasattr(module, "most_like") else [""] * len(paths)
        rows = []
        for path, regions, name in zip(paths, found, most_like, strict=True):
            text = json.dumps([region.as_json() for region in regions]) if regions else ""
            rows.append(Result(path, "", "", DONE, self.model, regions=text, most_like=name))
        for index, score in enumerate([] if batch.pred_score is None else batch.pred_score.flatten().tolist()):
            good = module.standing(score) if hasattr(module, "standing") else None
            known = {"good_below": f"{good.lower / good.total:.6f}", "good_photos": str(good.total)} if good else {}
            rows[index] = rows[index]._replace(score=f"{score:.6f}", **known)
        for index, label in enumerate([] if batch.pred_label is None else batch.pred_label.flatten().tolist()):
            rows[index] = rows[index]._replace(label="anomalous" if label else "normal")
        if getattr(module, "is_uncalibrated", False):  # a guess is no decision
            rows = [row._replace(label=UNCALIBRATED) for row in rows]
        return rows

    def _unreadable(self, path: str) -> Result:
        """A row for an image that the data set left out: reading it once more tells why."""
        try:
            self.read_image(path)
            reason = f"cannot read image {path}: it was being written, run again for it"
        except ImageReadError as error:
            reason = str(error)
        logger.warning("%s; going on without it", reason)
        return Result(path, "", "", reason, self.model)
