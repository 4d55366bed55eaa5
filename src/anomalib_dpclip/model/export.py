"""Export of DP-CLIP to torch, ONNX and OpenVINO files. anomalib does the work; what it cannot know is added here."""

import logging
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from anomalib import TaskType
from anomalib.data import AnomalibDataModule
from anomalib.deploy import CompressionType
from anomalib.models.components.base.export_mixin import ExportMixin
from torchmetrics import Metric

from anomalib_dpclip.model.quantisation import quantise, quantise_with_accuracy_control

OPSET = 18
"""ONNX operator set: the lowest that torch's exporter writes. anomalib's default, 14, ends in a failed conversion."""


class DPCLIPExport(ExportMixin):
    """anomalib's exports, of a model that has one class's text anchors and nothing left to learn.

    A file holds the resize, vision tower, adapters, text anchors, score fusion, normalisation and thresholds; it holds no
    text tower.
    """

    model: Any
    require_references: Any

    def to_torch(self, export_root: Path | str, model_file_name: str = "model") -> Path:
        """Write ``weights/torch/{model_file_name}.pt``, a pickled module.

        Args:
            export_root: Folder to write below.
            model_file_name: Name of the file.

        Returns:
            The file.

        Raises:
            ValueError: If there is no class to detect anomalies of.
        """
        self._require_anchors()
        self.require_references()
        deployed: Any = deepcopy(self)
        deployed.eval().requires_grad_(False)  # anomalib's inferencer runs with gradients enabled
        deployed.evaluator = None  # its histograms take more than the adapters
        deployed.auxiliary = None  # in Python this can be a whole data module
        return ExportMixin.to_torch(deployed, export_root, model_file_name)

    def to_onnx(
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        **kwargs: Any,
    ) -> Path:
        """Write ``weights/onnx/{model_file_name}.onnx``, one file up to 2 GB and a ``.data`` file beside it from there.

        Args:
            export_root: Folder to write below.
            model_file_name: Name of the file.
            input_size: Fix height and width of the input. Default: images of any size, which the file resizes.
            kwargs: For ``torch.onnx.export``, as in anomalib.

        Returns:
            The file.

        Raises:
            ValueError: If there is no class to detect anomalies of.
        """
        self._require_anchors()
        self.require_references()
        # Their line for each of a thousand constants would bury what anomalib has to say.
        for name in ("onnx_ir", "onnxscript"):
            logging.getLogger(name).setLevel(logging.WARNING)
        arguments = {"opset_version": OPSET, "external_data": False, **kwargs}
        self.model.rehearsing = True  # anomalib tries the model first, for the names of its outputs
        try:
            with torch.no_grad():  # else torch's loop over tiles is exported for one batch size
                return super().to_onnx(export_root, model_file_name, input_size, **arguments)
        finally:
            self.model.rehearsing = False

    def _compress_ov_model(
        self,
        model: Any,
        compression_type: CompressionType | None = None,
        datamodule: AnomalibDataModule | None = None,
        metric: Metric | None = None,
        task: TaskType | None = None,
        max_drop: float = 0.01,
    ) -> Any:
        """INT8 arithmetic where a transformer can bear it, see `quantisation`; the rest is anomalib's."""
        if compression_type == CompressionType.INT8_PTQ:
            return quantise(model, datamodule)
        if compression_type == CompressionType.INT8_ACQ:
            return quantise_with_accuracy_control(model, datamodule, metric, max_drop)
        return super()._compress_ov_model(model, compression_type, datamodule, metric, task, max_drop)

    def _require_anchors(self) -> None:
        if not self.model.anchors.any():
            raise ValueError(
                "there is nothing to export, the model knows no class yet: give trained adapters with --ckpt_path or "
                "--model.weights, and what the images show with --model.class_name"
            )
