"""What watches a run of DPCLIP, in the order in which it is told of it."""

from typing import Any

from lightning.pytorch import Callback

from anomalib_dpclip.callbacks.default_callbacks import default_callbacks
from anomalib_dpclip.model.auxiliary_data import AuxiliaryCalibration, LearnFromAuxiliary
from anomalib_dpclip.model.scoring import PrepareScorer


def watching_callbacks(module: Any) -> list[Callback]:
    """Callbacks of a run: learning from the auxiliary set, preparing the scorer, the results' folder, reports and pictures.

    Args:
        module: `DPCLIP`.
    """
    callbacks = [LearnFromAuxiliary(), AuxiliaryCalibration(), PrepareScorer(), *default_callbacks(module.attached_trainer)]
    if module.visualizer is not None:
        from anomalib_dpclip.visualization.contact_sheet import ContactSheet

        callbacks.append(ContactSheet())
    return callbacks
