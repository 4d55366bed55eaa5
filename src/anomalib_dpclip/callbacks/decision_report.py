"""What a validation and a test decided, in the terminal, and in a CSV of every photo."""

import csv
from pathlib import Path
from typing import Any, NamedTuple

from anomalib.data import ImageBatch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from anomalib_dpclip.files.atomic_write import atomic_write
from anomalib_dpclip.post_processing.post_processor import DPCLIPPostProcessor

DECISIONS = "decisions.csv"
SHOWN = 5
"""Images named in the terminal of each kind of mistake; all are in the CSV."""


class Decision(NamedTuple):
    """What was decided of an image.

    Attributes:
        path: The image.
        score: Its score in [0, 1], the threshold is 0.5.
        label: ``normal`` or ``anomalous``.
        truth: The same, as labelled; empty where nobody has.
    """

    path: str
    score: float
    label: str
    truth: str


class DecisionReport(Callback):
    """Says the thresholds after a validation, and after a test the mistakes; writes every decision to `DECISIONS`.

    With several processes each reports on its own images, and only the first one does so.
    """

    def __init__(self) -> None:
        self._decisions: list[Decision] = []

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Say which thresholds a validation has set, from what, and where they are kept: the checkpoint is written by now."""
        post_processor: Any = pl_module.post_processor
        if (
            stage == "validate"
            and isinstance(post_processor, DPCLIPPostProcessor)
            and post_processor.calibration.threshold_basis
        ):
            _say(f"Calibrated: {post_processor.calibration.threshold_basis}.")
            _say(_thresholds(post_processor))
            for callback in trainer.checkpoint_callbacks:
                path = getattr(callback, "best_model_path", "")
                if path:
                    _say(f"Kept in {path}: give it as --ckpt_path.")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier test."""
        del trainer, pl_module
        self._decisions = []

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: ImageBatch, *args: Any, **kwargs: Any
    ) -> None:
        """Remember a batch's decisions."""
        del trainer, pl_module, outputs, args, kwargs
        if batch.image_path is None or batch.pred_score is None or batch.pred_label is None:
            return
        labels = map(_label, batch.pred_label.tolist())
        truths = [""] * len(batch.image_path) if batch.gt_label is None else map(_label, batch.gt_label.tolist())
        scores = batch.pred_score.tolist()
        self._decisions += [Decision(*row) for row in zip(batch.image_path, scores, labels, truths, strict=True)]

    @rank_zero_only
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the CSV and say what was missed and what was a false alarm."""
        if not self._decisions:
            return
        path = Path(trainer.default_root_dir) / DECISIONS
        write_decisions(self._decisions, path)
        post_processor: Any = pl_module.post_processor
        if isinstance(post_processor, DPCLIPPostProcessor):
            _say(_thresholds(post_processor))
        for line in mistakes(self._decisions):
            _say(line)
        _say(f"All {len(self._decisions)} decisions: {path}")


def write_decisions(decisions: list[Decision], path: Path) -> None:
    """Write decisions to a CSV file, the whole file or none."""
    with atomic_write(path) as unfinished, unfinished.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Decision._fields)
        writer.writerows((d.path, f"{d.score:.6f}", d.label, d.truth) for d in decisions)


def mistakes(decisions: list[Decision]) -> list[str]:
    """What a test got wrong, as lines to read: misses, then false alarms, the worst first.

    Args:
        decisions: Of all images.
    """
    anomalous = [d for d in decisions if d.truth == "anomalous"]
    normal = [d for d in decisions if d.truth == "normal"]
    missed = sorted((d for d in anomalous if d.label == "normal"), key=lambda d: d.score)
    alarms = sorted((d for d in normal if d.label == "anomalous"), key=lambda d: -d.score)
    lines = [f"{len(missed)} of {len(anomalous)} anomalous images missed" + _named(missed)] if anomalous else []
    lines += [f"{len(alarms)} of {len(normal)} normal images called anomalous" + _named(alarms)] if normal else []
    if normal and len(alarms) == len(normal) and not missed:
        lines.append("Everything was called anomalous: at this threshold the model decides nothing, whatever F1Max says.")
    return lines


def _named(decisions: list[Decision]) -> str:
    if not decisions:
        return "."
    shown = ", ".join(f"{d.path} ({d.score:.3f})" for d in decisions[:SHOWN])
    return f": {shown}{', ...' if len(decisions) > SHOWN else ''}"


def _thresholds(post_processor: DPCLIPPostProcessor) -> str:
    image, pixel, _ = post_processor.calibration.thresholds
    return f"Thresholds: image score {image:.4f}, map {pixel:.4f} (raw; both are 0.5 after normalisation)."


def _label(value: bool | int) -> str:
    return "anomalous" if value else "normal"


@rank_zero_only
def _say(line: str) -> None:
    print(line)  # noqa: T201  (the answer to the command)
