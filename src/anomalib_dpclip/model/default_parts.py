"""What DPCLIP is made of where nobody says otherwise: anomalib's hooks for its parts."""

from collections.abc import Sequence
from typing import Any

from anomalib.metrics import Evaluator
from anomalib.visualization import Visualizer
from lightning.pytorch import Callback

from anomalib_dpclip.callbacks.default_callbacks import default_callbacks
from anomalib_dpclip.metrics import field_metrics
from anomalib_dpclip.post_processing.post_processor import DPCLIPPostProcessor
from anomalib_dpclip.pre_processing.pre_processor import CLIPPreProcessor
from anomalib_dpclip.visualization.visualizer import PictureVisualizer


class DefaultParts:
    """The part of `DPCLIP` that names its parts."""

    visualizer: Any
    _trainer: Any
    trainer: Any

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """No sanity check: its few batches would set thresholds. Everything else is the user's."""
        return {"num_sanity_val_steps": 0}

    @staticmethod
    def configure_pre_processor(image_size: tuple[int, int] | None = None) -> CLIPPreProcessor:
        """Bicubic resize (default 518 x 518) and OpenAI's normalisation."""
        return CLIPPreProcessor(image_size or (518, 518))

    def configure_post_processor(self) -> DPCLIPPostProcessor:
        """Score fusion, normalisation and thresholds of the method."""
        return DPCLIPPostProcessor()

    @staticmethod
    def configure_evaluator() -> Evaluator:
        """The metrics that the field reports."""
        return Evaluator(test_metrics=field_metrics())

    @classmethod
    def configure_visualizer(cls) -> Visualizer:
        """Photo and heat map in the photo's own proportions, with score and decision."""
        return PictureVisualizer()

    def configure_callbacks(self) -> Sequence[Callback]:
        """Anomalib's components, a report of the decisions and, where pictures are wanted, a contact sheet."""
        callbacks: list[Any] = [*super().configure_callbacks(), *default_callbacks(self._trainer)]  # type: ignore[misc]
        if self.visualizer is not None:
            from anomalib_dpclip.visualization.contact_sheet import ContactSheet

            callbacks.append(ContactSheet())
        return callbacks
