"""What watches every run of DPCLIP."""

from lightning.pytorch import Callback, Trainer

from anomalib_dpclip.callbacks.checkpoint_io import write_checkpoints_whole
from anomalib_dpclip.callbacks.decision_report import DecisionReport, PredictionReport
from anomalib_dpclip.callbacks.expected_time import ExpectedTime
from anomalib_dpclip.callbacks.finite_loss import RequireFiniteLoss
from anomalib_dpclip.callbacks.missing_target import MissingTarget
from anomalib_dpclip.callbacks.results_folder import ResultsFolder, prepare_folder
from anomalib_dpclip.callbacks.resuming import Resuming
from anomalib_dpclip.callbacks.threads import ChooseThreads


def default_callbacks(trainer: Trainer | None) -> list[Callback]:
    """Callbacks of a run that is about to start, whose folder and checkpoints are arranged for before they are set up.

    Args:
        trainer: Trainer of the run; without one nothing is arranged.
    """
    if trainer is not None:
        prepare_folder(trainer)
        write_checkpoints_whole(trainer.strategy)
    # The last one raises where another one is told of an error.
    return [
        ChooseThreads(),
        ExpectedTime(),
        RequireFiniteLoss(),
        DecisionReport(),
        PredictionReport(),
        ResultsFolder(),
        Resuming(),
        MissingTarget(),
    ]
