"""Export of DP-CLIP to torch, ONNX and OpenVINO files. anomalib does the work; what it cannot know is added here."""

import logging
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from anomalib import TaskType
from anomalib.data import AnomalibDataModule
from anomalib.deploy import CompressionType
from anomalib.models.components.base.export_mixin import ExportMixin
from torch import Tensor
from torchmetrics import Metric

from anomalib_dpclip.adapter_files.adapter_file import Provenance
from anomalib_dpclip.adapter_files.read_and_write import tensor_digest
from anomalib_dpclip.adapter_files.save_and_load import adapter_tensors
from anomalib_dpclip.deploy.deployed import CLASS, RAW_SCORE, SCALES, Deployed, output_names, scale_table
from anomalib_dpclip.deploy.metadata import DeployedClass, Metadata
from anomalib_dpclip.deploy.onnx_file import finish_exported
from anomalib_dpclip.deploy.openvino_file import finish_converted, fix_scales
from anomalib_dpclip.deploy.quantisation import (
    compress_weights,
    quantise,
    quantise_with_accuracy_control,
    require_one_tile,
)
from anomalib_dpclip.files.measured_by import package_versions
from anomalib_dpclip.method.anchor_cache import AnchorCache
from anomalib_dpclip.post_processing.post_processor import DPCLIPPostProcessor

OPSET = 18
"""ONNX operator set: the lowest that torch's exporter writes. anomalib's default, 14, ends in a failed conversion."""

EXAMPLE_SIDE = 32
"""Of the images that an export is traced with, where the file takes any size; as in anomalib."""


class DPCLIPExport(ExportMixin):
    """anomalib's exports, of a model that has one class's text anchors and nothing left to learn.

    A file holds the resize, vision tower, adapters, text anchors, score fusion, normalisation and thresholds; it holds no
    text tower. ONNX and OpenVINO files say what they are of and can be given other thresholds (``dpclip threshold``).
    """

    model: Any
    provenance: Provenance
    post_processor: Any
    anchor_class: str
    require_references: Any
    has_references: bool
    anchors_for: AnchorCache
    export_classes: list[str]

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
        self._require_one_class("a torch file has one class; export to onnx or openvino")
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
        raw_score: bool = False,
        for_openvino: bool = False,
        **kwargs: Any,
    ) -> Path:
        """Write ``weights/onnx/{model_file_name}.onnx``, one file up to 2 GB and a ``.data`` file beside it from there.

        Args:
            export_root: Folder to write below.
            model_file_name: Name of the file.
            input_size: Fix height and width of the input. Default: images of any size, which the file resizes.
            raw_score: Whether the file gives the raw image score too, which anomalib's ``OpenVINOInferencer`` refuses.
                ``dpclip threshold`` can switch it on and off afterwards.
            for_openvino: Leave the file as OpenVINO's conversion needs it, with the table of scales as an input.
            kwargs: For ``torch.onnx.export``, as in anomalib.

        Returns:
            The file.

        Raises:
            ValueError: If there is no class to detect anomalies of.
        """
        self._require_anchors()
        if self.has_references:
            self._require_one_class("photos show what one target should look like; export a file for each")
        if not isinstance(self.post_processor, DPCLIPPostProcessor):
            self._require_one_class("classes need DPCLIP's own post-processor")
        self.require_references()
        # Their line for each of a thousand constants would bury what anomalib has to say.
        for name in ("onnx_ir", "onnxscript"):
            logging.getLogger(name).setLevel(logging.WARNING)
        arguments = {"opset_version": OPSET, "external_data": False, **kwargs}
        if not isinstance(self.post_processor, DPCLIPPostProcessor):  # without our thresholds there are none to move
            self.model.rehearsing = True  # anomalib tries the model first, for the names of its outputs
            try:
                with torch.no_grad():
                    return super().to_onnx(export_root, model_file_name, input_size, **arguments)
            finally:
                self.model.rehearsing = False
        path = Path(export_root) / "weights" / "onnx" / f"{model_file_name}.onnx"
        self._trace(path, input_size, arguments)
        if not for_openvino:
            finish_exported(path, self._scales().numpy(), self._metadata(), raw_score)
        return path

    def to_openvino(
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        *,
        onnx_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Path:
        """Write ``weights/openvino/{model_file_name}.xml`` and ``.bin``.

        Args:
            export_root: Folder to write below.
            model_file_name: Name of the files.
            input_size: As in `to_onnx`.
            onnx_kwargs: As in `to_onnx`, ``raw_score`` among them.
            kwargs: As in anomalib: compression, and what it needs.

        Returns:
            The ``.xml`` file.

        Raises:
            ValueError: If there is no class to detect anomalies of, or what is asked for cannot be quantised.
        """
        if kwargs.get("compression_type") in {CompressionType.INT8_PTQ, CompressionType.INT8_ACQ}:
            require_one_tile(self.model.tiles)
        options = dict(onnx_kwargs or {})
        if not isinstance(self.post_processor, DPCLIPPostProcessor):
            return super().to_openvino(export_root, model_file_name, input_size, onnx_kwargs=options, **kwargs)
        raw_score = bool(options.pop(RAW_SCORE, False))
        path = Path(export_root) / "weights" / "openvino" / f"{model_file_name}.xml"
        with TemporaryDirectory() as folder:
            options |= {"for_openvino": True}
            converted = super().to_openvino(folder, model_file_name, input_size, onnx_kwargs=options, **kwargs)
            finish_converted(converted, path, self._scales().numpy(), self._metadata(), raw_score)
        return path

    def _trace(self, path: Path, input_size: tuple[int, int] | None, arguments: dict[str, Any]) -> None:
        """Write what torch makes of the model, with the table of scales as a second input."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.eval()  # type: ignore[attr-defined]
        axes = {0: "batch_size"} if input_size else {0: "batch_size", 2: "height", 3: "width"}
        shapes = {axis: torch.export.Dim(name) for axis, name in axes.items()}
        device = self.model.anchors.device
        images = torch.zeros(2, 3, *(input_size or (EXAMPLE_SIDE, EXAMPLE_SIDE)), device=device)
        inputs: dict[str, Tensor] = {"input": images, SCALES: self._scales().to(device)}
        if len(self.export_classes) > 1:
            inputs[CLASS] = torch.zeros(1, dtype=torch.int64, device=device)
        names = {"input_names": list(inputs), "output_names": output_names(self.post_processor)}
        with torch.no_grad():  # else torch's loop over tiles is exported for one batch size
            torch.onnx.export(
                Deployed(self, self._anchors()).eval(),
                tuple(inputs.values()),
                str(path),
                **{"dynamic_shapes": (shapes, *[None] * (len(inputs) - 1)), **names, **arguments, "dynamo": True},
            )

    def _anchors(self) -> Tensor:
        """Text anchors of each class ``(C, E, 2)``."""
        if not self.export_classes:
            return self.model.anchors[None]
        return torch.stack([self.anchors_for(name) for name in self.export_classes]).to(self.model.anchors.device)

    def _scales(self) -> Tensor:
        """The scale in force, for each class ``(C, 14)``."""
        return scale_table([self.post_processor.calibration.scale.packed()] * max(1, len(self.export_classes)))

    def _metadata(self) -> Metadata:
        known, processor = self.provenance, self.post_processor
        scale, threshold_basis = self._scales()[0].tolist(), processor.calibration.threshold_basis
        return Metadata(
            backbone=known.backbone,
            pretrained=known.pretrained,
            adapters=tensor_digest(adapter_tensors(self.model)),
            learned_from=known.learned_from,
            domain=processor.domain,
            is_normalised=processor.enable_normalization,
            classes=[DeployedClass(name, scale, threshold_basis) for name in self.export_classes or [self.anchor_class]],
            version=package_versions()["anomalib-dpclip"],
        )

    def _compress_ov_model(
        self,
        model: Any,
        compression_type: CompressionType | None = None,
        datamodule: AnomalibDataModule | None = None,
        metric: Metric | None = None,
        task: TaskType | None = None,
        max_drop: float = 0.01,
    ) -> Any:
        """INT8 as tiles and a transformer can bear it, see `quantisation`; the rest is anomalib's."""
        if compression_type == CompressionType.INT8:
            return compress_weights(model)
        if isinstance(self.post_processor, DPCLIPPostProcessor):
            fix_scales(model, self._scales().numpy())  # these run the model, on images alone
        if compression_type == CompressionType.INT8_PTQ:
            return quantise(model, datamodule)
        if compression_type == CompressionType.INT8_ACQ:
            return quantise_with_accuracy_control(model, datamodule, metric, max_drop)
        return super()._compress_ov_model(model, compression_type, datamodule, metric, task, max_drop)

    def _require_anchors(self) -> None:
        if not self.export_classes and not self.model.anchors.any():
            raise ValueError(
                "there is nothing to export, the model knows no class yet: give trained adapters with --ckpt_path or "
                "--model.weights, and what the images show with --model.class_name"
            )

    def _require_one_class(self, why: str) -> None:
        if len(self.export_classes) > 1:
            raise ValueError(f"--model.export_classes {','.join(self.export_classes)}: {why}")
