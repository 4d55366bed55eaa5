"""What a validation, a test or a prediction decided, in the terminal, and of a test in a CSV of every photo."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from anomalib.data import ImageBatch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from anomalib_dpclip.files.atomic_write import atomic_write
from anomalib_dpclip.post_processing.post_processor import DPCLIPPostProcessor
from anomalib_dpclip.post_processing.score_text import Standing, score_text

DECISIONS = "decisions.csv"

MAX_NAMED = 10
"""Images named in the terminal of each kind of mistake; all are in the CSV."""

MAX_LISTED = 20
"""Predictions listed in the terminal; of more, it is how many and how many of them are anomalous."""


class Decision(NamedTuple):
    """What was decided of an image: score in [0, 1] (threshold 0.5); labels ``normal`` or ``anomalous``, empty if unknown."""

    path: str
    score: float
    label: str
    truth: str = ""


class DecisionReport(Callback):
    """Says the thresholds after a validation, and after a test the mistakes; writes every decision to `DECISIONS`.

    With several processes each reports on its own images, and only the first one does so.
    """

    def __init__(self) -> None:
        self._decisions: list[Decision] = []

    @rank_zero_only
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Say which thresholds a validation has set, from what, and where they are kept: the checkpoint is written by now."""
        processor: Any = pl_module.post_processor
        if stage != "validate" or not sum(trainer.num_val_batches) or not isinstance(processor, DPCLIPPostProcessor):
            return
        if processor.calibration.threshold_basis:
            print(f"Calibrated: {processor.calibration.threshold_basis}.\n{_thresholds(processor)}")  # noqa: T201
            for path in filter(None, (getattr(each, "best_model_path", "") for each in trainer.checkpoint_callbacks)):
                print(f"Kept in {path}: give it as --ckpt_path.")  # noqa: T201

    def on_test_start(self, *_: Any) -> None:
        """Forget an earlier test."""
        self._decisions = []

    def on_test_batch_end(self, _trainer: Trainer, _module: LightningModule, _outputs: Any, batch: ImageBatch, *_: Any) -> None:
        """Keep a batch's decisions."""
        self._decisions += decisions_of(batch)

    @rank_zero_only
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the CSV and say what was missed and what was a false alarm."""
        if not self._decisions:
            return
        path = Path(trainer.default_root_dir) / DECISIONS
        with atomic_write(path) as unfinished:
            pd.DataFrame(self._decisions).to_csv(unfinished, index=False, float_format="%.6f", errors="surrogateescape")
        processor: Any = pl_module.post_processor
        lines = [_thresholds(processor)] if isinstance(processor, DPCLIPPostProcessor) else []
        root = getattr(getattr(trainer, "datamodule", None), "root", None) or "."
        lines += [*mistakes(self._decisions, root), f"All {len(self._decisions)} decisions: {path}"]
        print("\n".join(lines).encode(errors="replace").decode())  # noqa: T201


class PredictionReport(Callback):
    """Prints score, decision and picture of each of the first photos, unless a writer of results is there for that.

    A batch is listed after the next one: until then its pictures are drawn.
    """

    def __init__(self) -> None:
        self._held: list[Decision] = []
        self._count = self._anomalous = 0

    def on_predict_start(self, *_: Any) -> None:
        """Forget an earlier run."""
        self._held, self._count, self._anomalous = [], 0, 0

    @rank_zero_only
    def on_predict_batch_end(self, trainer: Trainer, _module: Any, _outputs: Any, batch: ImageBatch, *_: Any) -> None:
        """List the batch before."""
        self._list_held(trainer)
        self._held = decisions_of(batch)

    @rank_zero_only
    def on_predict_end(self, trainer: Trainer, *_: Any) -> None:
        """List the last batch."""
        self._list_held(trainer)
        if self._count > MAX_LISTED:
            print(f"and {self._count - MAX_LISTED} more: {self._anomalous} of {self._count} anomalous")  # noqa: T201

    def _list_held(self, trainer: Trainer) -> None:
        callbacks: Any = trainer.callbacks  # type: ignore[attr-defined]  # Lightning's trainer has them
        if any(isinstance(each, BasePredictionWriter) for each in callbacks):
            return
        pictures: Mapping[str, Path] = next((each.pictures for each in callbacks if hasattr(each, "pictures")), {})
        standing = getattr(trainer.lightning_module, "standing", lambda _: None)  # DP-CLIP's, which knows good images
        for decision in self._held:
            self._count += 1
            self._anomalous += decision.label == "anomalous"
            if self._count <= MAX_LISTED:
                line = prediction_line(decision, pictures.get(decision.path), standing(decision.score))
                print(line, flush=True)  # noqa: T201
        self._held = []


def decisions_of(batch: ImageBatch) -> list[Decision]:
    """What was decided of the images of a batch; nothing where one has no path, score or label."""
    if batch.image_path is None or batch.pred_score is None or batch.pred_label is None:
        return []

    def words(labels: Tensor) -> list[str]:
        return ["anomalous" if each else "normal" for each in labels.flatten().tolist()]

    truths = [""] * len(batch.image_path) if batch.gt_label is None else words(batch.gt_label)
    return list(map(Decision, batch.image_path, batch.pred_score.flatten().tolist(), words(batch.pred_label), truths))


def mistakes(decisions: Sequence[Decision], root: Path | str = ".") -> list[str]:
    """What a test got wrong, as lines to read: misses, then false alarms, the worst first, with paths relative to a root."""
    anomalous = [d for d in decisions if d.truth == "anomalous"]
    normal = [d for d in decisions if d.truth == "normal"]
    missed = sorted((d for d in anomalous if d.label == "normal"), key=lambda d: d.score)
    alarms = sorted((d for d in normal if d.label == "anomalous"), key=lambda d: -d.score)
    lines = _named(f"{len(missed)} of {len(anomalous)} anomalous images missed", missed, root) if anomalous else []
    lines += _named(f"{len(alarms)} of {len(normal)} normal images called anomalous", alarms, root) if normal else []
    if normal and len(alarms) == len(normal) and not missed:
        lines.append("Everything was called anomalous: at this threshold the model decides nothing, whatever F1Max says.")
    return lines


def prediction_line(decision: Decision, picture: Path | None, standing: Standing | None = None) -> str:
    """Score, decision, photo and picture, paths as they are shortest, and where the score stands among those of good photos.

    Example:
        >>> prediction_line(Decision("/photos/0.png", 0.8765, "anomalous"), None, Standing(78, 80))
        '0.876  anomalous  /photos/0.png  97.5 % of 80 good photos score lower'
    """
    shortest = [min(str(path), os.path.relpath(path), key=len) for path in (decision.path, picture) if path is not None]
    line = "  ".join([score_text(decision.score), f"{decision.label:9}", *shortest, *([str(standing)] if standing else [])])
    return line.encode(errors="replace").decode()


def _named(heading: str, decisions: Sequence[Decision], root: Path | str) -> list[str]:
    """A heading, and images below it, one a line."""
    if not decisions:
        return [f"{heading}."]
    lines = [f"  {score_text(d.score)}  {os.path.relpath(d.path, root)}" for d in decisions[:MAX_NAMED]]
    more = [f"  and {len(decisions) - MAX_NAMED} more"] if len(decisions) > MAX_NAMED else []
    return [f"{heading}:", *lines, *more]


def _thresholds(post_processor: DPCLIPPostProcessor) -> str:
    image, pixel, *_ = post_processor.calibration.thresholds
    return f"Thresholds: image score {image:.4f}, map {pixel:.4f} (raw; both are 0.5 after normalisation)."
