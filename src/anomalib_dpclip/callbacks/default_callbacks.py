"""What watches every run of DPCLIP."""

from lightning.pytorch import Callback, Trainer

from anomalib_dpclip.callbacks.checkpoint_io import write_checkpoints_whole
from anomalib_dpclip.callbacks.decision_report import DecisionReport, PredictionReport
from anomalib_dpclip.callbacks.duration import ChooseThreads, ExpectedTime
from anomalib_dpclip.callbacks.failures import MissingTarget, RequireFiniteLoss
from anomalib_dpclip.callbacks.results_folder import ResultsFolder, prepare_folder
from anomalib_dpclip.callbacks.resuming import Resuming


def default_callbacks(trainer: Trainer | None) -> list[Callback]:
    """Callbacks of a run, whose folder and checkpoints are arranged for before any is set up; without a trainer nothing is."""
    if trainer is not None:
        prepare_folder(trainer)
        write_checkpoints_whole(trainer.strategy)
    watching: list[Callback] = [ChooseThreads(), ExpectedTime(), RequireFiniteLoss(), DecisionReport(), PredictionReport()]
    return [*watching, ResultsFolder(), Resuming(), MissingTarget()]  # the last one raises where others are told of an error
