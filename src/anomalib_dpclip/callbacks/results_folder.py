"""The folder of a run's results: what a training has made stays, and ``latest`` is the last run that has finished.

anomalib links ``latest`` to a training's numbered folder as it starts, and lets tests and predictions write where that leads.
"""

import os
import re
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_dpclip.callbacks.checkpoint_io import holds_training_state
from anomalib_dpclip.files.private_names import replace_checkpoints, set_results_folder

LATEST = "latest"
"""What anomalib calls the link to the last training's results, and the folder of tests and predictions."""

EVALUATION = "evaluation"
"""Folder below a training's own of what validations, tests and predictions make later."""

UNFINISHED = "unfinished"
"""Empty file in the folder of a run that has not finished."""

_NUMBERED = re.compile(r"v(\d+)")


class ResultsFolder(Callback):
    """Makes ``latest`` a link to a training's results when it has finished; `prepare_folder` comes before."""

    def teardown(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """The run has finished: Lightning does not come here otherwise."""
        folder = Path(trainer.default_root_dir)
        if trainer.is_global_zero and (folder / UNFINISHED).exists():
            (folder / UNFINISHED).unlink()
            if any(folder.iterdir()):
                _link(folder.with_name(LATEST), folder)
            else:
                folder.rmdir()


def prepare_folder(trainer: Trainer) -> None:
    """Choose where a run writes that is about to start, before any of its callbacks has been set up."""
    folder, command = Path(trainer.default_root_dir), trainer.state.fn
    latest = folder.with_name(LATEST)
    is_latest = bool(_NUMBERED.fullmatch(folder.name)) and latest.is_symlink() and latest.resolve() == folder.resolve()
    makes_links = os.name != "nt" and trainer.is_global_zero
    is_empty = makes_links and is_latest and not any(folder.iterdir())
    if command != TrainerFn.FITTING:
        for callback in trainer.checkpoint_callbacks:  # else a calibration would be ``model-v1.ckpt``, and nobody looks for it
            replace_checkpoints(callback)
    # A training of given adapters only validates, and then tests, in the folder that anomalib has made for it.
    if command == TrainerFn.FITTING or (command == TrainerFn.VALIDATING and is_empty):
        if makes_links and is_latest:
            (folder / UNFINISHED).touch()  # until it has finished, ``latest`` stays with the last run that has
            _link_finished(latest)
        return
    if is_empty:
        _undo(latest)
        _move(trainer, folder, latest.resolve())
        folder = Path(trainer.default_root_dir)
    if not trainer.global_step and any(map(holds_training_state, (folder / "weights" / "lightning").glob("*.ckpt"))):
        _move(trainer, folder, folder / EVALUATION)
    elif makes_links and folder.name == LATEST and not folder.is_symlink():
        # anomalib would make it a folder, which it cannot replace by the first training's link: `IsADirectoryError`.
        numbered = folder.with_name(f"v{max(_numbered(folder.parent), default=-1) + 1}")
        if folder.exists():
            folder.rename(numbered)
        else:
            numbered.mkdir(parents=True)
        _link(folder, numbered)


def restore_latest(root: Path) -> None:
    """Undo, in the folder of all runs of a model, what anomalib has done for a training that failed before it began."""
    for latest in (*root.glob(f"*/{LATEST}"), *root.glob(f"*/*/{LATEST}")):
        if latest.is_symlink() and latest.is_dir() and not any(latest.iterdir()):
            _undo(latest)


def _undo(latest: Path) -> None:
    """Forget a run that has written nothing: Lightning refused an argument of the trainer before the model was asked."""
    latest.resolve().rmdir()
    _link_finished(latest)


def _move(trainer: Trainer, folder: Path, to: Path) -> None:
    """Have all results of a run, checkpoints included, written to another folder."""
    set_results_folder(trainer, to)
    callback: Any
    for callback in trainer.checkpoint_callbacks:
        dirpath = getattr(callback, "dirpath", None)
        if dirpath and Path(dirpath).is_relative_to(folder.resolve()):
            callback.dirpath = os.fspath(to.resolve() / Path(dirpath).relative_to(folder.resolve()))


def _link_finished(latest: Path) -> None:
    """Have ``latest`` lead to the last run that has finished, or nowhere."""
    runs = _numbered(latest.parent)
    finished = [number for number, path in runs.items() if not (path / UNFINISHED).exists() and any(path.iterdir())]
    if finished:
        _link(latest, runs[max(finished)])
    else:
        latest.unlink()


def _numbered(parent: Path) -> dict[int, Path]:
    """Folders of runs by their numbers."""
    return {int(path.name[1:]): path for path in parent.glob("v*") if _NUMBERED.fullmatch(path.name) and path.is_dir()}


def _link(latest: Path, folder: Path) -> None:
    latest.unlink(missing_ok=True)
    latest.symlink_to(folder, target_is_directory=True)
