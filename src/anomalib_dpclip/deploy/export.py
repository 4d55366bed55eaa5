"""Export of DP-CLIP to torch, ONNX and OpenVINO files."""

import logging
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from anomalib import TaskType
from anomalib.data import AnomalibDataModule
from anomalib.deploy import CompressionType
from anomalib.models.components.base.export_mixin import ExportMixin
from torch import Tensor, nn
from torchmetrics import Metric

from anomalib_dpclip.adapter_files.adapter_file import Provenance
from anomalib_dpclip.adapter_files.read_and_write import tensor_digest
from anomalib_dpclip.adapter_files.save_and_load import adapter_tensors
from anomalib_dpclip.deploy.metadata import CLASS, RAW_SCORE, SCALES, DeployedClass, Metadata
from anomalib_dpclip.deploy.onnx_file import finish_exported
from anomalib_dpclip.deploy.openvino_file import finish_converted, save
from anomalib_dpclip.deploy.quantisation import compressed, require_quantisable
from anomalib_dpclip.files.measured_by import package_versions
from anomalib_dpclip.post_processing.scale import unpacked
from anomalib_dpclip.pre_processing.pre_processor import require_same_resize

OPSET = 18
"""ONNX operator set: the lowest that torch's exporter writes. anomalib's default, 14, ends in a failed conversion."""

EXAMPLE_SIDE = 32
"""Height and width of the images that an export is traced with, where the file takes any size; as in anomalib."""


class DeployedOutputs(NamedTuple):
    """What a file gives: as anomalib's `InferenceBatch`, and the raw image score."""

    pred_score: Tensor | None
    pred_label: Tensor | None
    anomaly_map: Tensor | None
    pred_mask: Tensor | None
    raw_score: Tensor


class Deployed(nn.Module):
    """A model as it is exported: text anchors ``(C, E, 2)`` and scales are tables with a row a class.

    `networks` are the modules that the scorer computes with, so that they are exported.
    """

    anchors: Tensor

    def __init__(
        self, pre_processor: nn.Module | None, scorer: Any, networks: list[nn.Module], post_processor: Any, anchors: Tensor
    ) -> None:
        super().__init__()
        self.pre_processor, self.scorer, self.post_processor = pre_processor, scorer, post_processor
        self.networks = nn.ModuleList(networks)
        self.register_buffer("anchors", anchors)

    def forward(self, images: Tensor, scales: Tensor, chosen: Tensor | None = None) -> DeployedOutputs:
        """Score images ``(B, 3, H, W)`` in [0, 1].

        Args:
            images: The images.
            scales: A packed `Scale` of each class ``(C, 15)``.
            chosen: Number of the class that the images show ``(1,)``; without it there is one class.
        """
        anchors, packed = (
            table[0] if chosen is None else table.index_select(0, chosen).squeeze(0) for table in (self.anchors, scales)
        )
        images = images if self.pre_processor is None else self.pre_processor(images)
        raw = self.scorer.score(images, anchors)
        scale = unpacked(packed)
        result = self.post_processor.scaled(raw, scale)
        raw_score = self.post_processor.raw_score(raw, scale)
        return DeployedOutputs(result.pred_score, result.pred_label, result.anomaly_map, result.pred_mask, raw_score)


class DPCLIPExport(ExportMixin):
    """anomalib's exports, of a model that has text anchors and nothing left to learn: the second base of `DPCLIP`.

    A file holds everything but the text tower. ONNX and OpenVINO files say what they are of and can be given other thresholds
    (``dpclip threshold``), unless the model has another post-processor than DP-CLIP's.
    """

    model: Any
    provenance: Provenance
    pre_processor: Any
    post_processor: Any
    target: Any
    scorer: Any
    region: Any
    feature_tower: Any
    scorer_state: Any
    image_size: tuple[int, int]
    configuration: Any
    export_options: Any
    prepare_export: Any

    def to_torch(self, export_root: Path | str, model_file_name: str = "model") -> Path:
        """Write ``weights/torch/{model_file_name}.pt`` below a folder, a pickled module; a ValueError if it knows no class."""
        self._require_one_class("a torch file has one class; export to onnx or openvino")
        self._require_exportable()
        deployed: Any = deepcopy(self)
        deployed.eval().requires_grad_(False)  # anomalib's inferencer runs with gradients enabled
        deployed.evaluator = None  # its histograms take more than the adapters
        deployed.auxiliary = deployed.auxiliary_dataset = None  # in Python this can be a whole data module
        if (transform := getattr(deployed.pre_processor, "transform", None)) is not None:
            deployed.pre_processor.export_transform = transform  # torch needs no other than the model itself
        return ExportMixin.to_torch(deployed, export_root, model_file_name)

    def to_onnx(
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        raw_score: bool = False,
        **kwargs: Any,
    ) -> Path:
        """Write ``weights/onnx/{model_file_name}.onnx`` below a folder, above 2 GB with a ``.data`` file beside it.

        Args:
            export_root: Folder to write below.
            model_file_name: Name of the file.
            input_size: Height and width that the input is to have. Default: images of any size, which the file resizes.
            raw_score: Whether the file gives the raw image score too, which anomalib's ``OpenVINOInferencer`` refuses.
                ``dpclip threshold`` can switch it on and off afterwards.
            kwargs: Arguments of ``torch.onnx.export``, as in anomalib.

        Raises:
            ValueError: As `to_torch`, or if the pre-processor resizes otherwise in a file.
        """
        self._require_exportable()
        path = self._trace(Path(export_root), model_file_name, input_size, kwargs)
        if self._has_scales:
            finish_exported(path, self._scales.numpy(), self._metadata(), raw_score)
        return path

    def to_openvino(
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        compression_type: CompressionType | None = None,
        datamodule: AnomalibDataModule | None = None,
        metric: Metric | None = None,
        task: TaskType | None = None,
        max_drop: float = 0.01,
        ov_kwargs: dict[str, Any] | None = None,
        onnx_kwargs: dict[str, Any] | None = None,
    ) -> Path:
        """Write ``weights/openvino/{model_file_name}.xml`` and ``.bin`` below a folder; give the path of the first.

        `compression_type` is ``FP16``, ``INT8`` (weights) or ``INT8_PTQ`` (products of tokens with weights), which takes ranges
        of activations from the normal training images of `datamodule`. `ov_kwargs` are arguments of ``openvino.convert_model``,
        `input_size` and `onnx_kwargs`, ``raw_score`` among them, of `to_onnx`; anomalib's for ``INT8_ACQ`` are not used.

        Raises:
            ValueError: As `to_onnx`, or if the model cannot be compressed in this way.
        """
        del metric, task, max_drop
        import openvino

        require_quantisable(compression_type, self.configuration.tiles)
        self._require_exportable()
        options = dict(onnx_kwargs or {})
        raw_score = bool(options.pop(RAW_SCORE, False))
        path = Path(export_root) / "weights" / "openvino" / f"{model_file_name}.xml"
        with TemporaryDirectory() as folder:
            onnx_path = self._trace(Path(folder), model_file_name, input_size, options)
            model = openvino.convert_model(onnx_path, **(ov_kwargs or {}))
            others = {name: tensor.numpy() for name, tensor in self._other_inputs.items()}
            model = compressed(model, compression_type, datamodule, others)
        if self._has_scales:
            finish_converted(model, path, self._scales.numpy(), self._metadata(), raw_score)
        else:
            save(model, path)
        return path

    def _trace(self, root: Path, name: str, input_size: tuple[int, int] | None, options: dict[str, Any]) -> Path:
        """Write what torch makes of the model, with the table of scales as a second input, which is then to be fixed."""
        # Their line for each of a thousand constants would bury what anomalib has to say.
        for each in ("onnx_ir", "onnxscript"):
            logging.getLogger(each).setLevel(logging.WARNING)
        height, width = self.image_size
        require_same_resize(self.pre_processor, input_size or (height + EXAMPLE_SIDE, 2 * width))
        options = {"opset_version": OPSET, "external_data": False, **options}
        if not self._has_scales:
            with torch.no_grad():
                return ExportMixin.to_onnx(self, root, name, input_size, **options)
        path = root / "weights" / "onnx" / f"{name}.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        images = torch.zeros(2, 3, *(input_size or (EXAMPLE_SIDE, EXAMPLE_SIDE)))
        inputs = {"input": images, **self._other_inputs}
        axes = {0: "batch_size"} if input_size else {0: "batch_size", 2: "height", 3: "width"}
        shapes = ({axis: torch.export.Dim(axis_name) for axis, axis_name in axes.items()}, *[None] * len(self._other_inputs))
        # Without thresholding there are no labels and masks.
        labels = set() if self.post_processor.enable_thresholding else {"pred_label", "pred_mask"}
        outputs = [name for name in DeployedOutputs._fields if name not in labels]
        names = {"input_names": list(inputs), "output_names": outputs}
        networks = [each for each in (self.model, self.feature_tower, self.region, self.scorer_state) if each is not None]
        device = self.model.anchors.device
        anchors = [self.target.anchors_for(name).to(device) for name in self._classes] or [self.model.anchors]
        deployed = Deployed(self.pre_processor, self.scorer, networks, self.post_processor, torch.stack(anchors)).eval()
        with torch.no_grad():  # else torch's loop over tiles is exported for one batch size
            torch.onnx.export(
                deployed,
                tuple(tensor.to(device) for tensor in inputs.values()),
                str(path),
                **{"dynamic_shapes": shapes, **names, **options, "dynamo": True},
            )
        return path

    @property
    def _classes(self) -> list[str]:
        """Classes of one file; none at all for the one class of the model."""
        return list(self.export_options.names())

    @property
    def _has_scales(self) -> bool:
        """Whether the post-processor is DP-CLIP's: files of another have no thresholds to move."""
        return hasattr(self.post_processor, "calibration")

    @property
    def _scales(self) -> Tensor:
        """Scale in force, packed, for each class ``(C, 15)``, on the CPU."""
        packed = self.post_processor.calibration.scale.packed().detach().cpu().float()
        return packed.repeat(max(1, len(self._classes)), 1)

    @property
    def _other_inputs(self) -> dict[str, Tensor]:
        """Inputs of a traced model beside the images."""
        if not self._has_scales:
            return {}
        chosen = {CLASS: torch.zeros(1, dtype=torch.int64)} if len(self._classes) > 1 else {}
        return {SCALES: self._scales, **chosen}

    def _metadata(self) -> Metadata:
        known, processor = self.provenance, self.post_processor
        scale, threshold_basis = self._scales[0].tolist(), processor.calibration.threshold_basis
        return Metadata(
            backbone=known.backbone,
            pretrained=known.clip_weights,
            adapters=tensor_digest(adapter_tensors(self.model)),
            learned_from=known.learned_from,
            domain=self.model.domain,
            is_normalised=processor.enable_normalization,
            classes=[DeployedClass(name, scale, threshold_basis) for name in self._classes or [self.target.anchor_class]],
            version=package_versions()["anomalib-dpclip"],
        )

    def _require_exportable(self) -> None:
        """Have anchors and references, before anything is written."""
        if not self._classes and not self.model.anchors.any():
            raise ValueError(
                "there is nothing to export, the model knows no class yet: give trained adapters with --ckpt_path or "
                "--model.weights, and what the images show with --model.class_name"
            )
        self.prepare_export()
        if self.scorer.name == "memory":
            self._require_one_class("photos show what one target should look like; export a file for each")
        if not self._has_scales:
            self._require_one_class("classes need DPCLIP's own post-processor")

    def _require_one_class(self, why: str) -> None:
        if len(self._classes) > 1:
            raise ValueError(f"--model.export.classes {','.join(self._classes)}: {why}")
