"""DP-CLIP as an anomalib model: hooks, optimiser and processors. The maths is in the modules it imports."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from anomalib import LearningType
from anomalib.data import AnomalibDataModule, AnomalibDataset, ImageBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.visualization import Visualizer
from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.utils.data import DataLoader

from anomalib_dpclip.adapters import Pooling
from anomalib_dpclip.anchor_cache import AnchorCache
from anomalib_dpclip.anomaly_map import Domain, anomaly_map, detection_score, difference_grid
from anomalib_dpclip.auxiliary import auxiliary_loader
from anomalib_dpclip.auxiliary_scores import AuxiliaryScores
from anomalib_dpclip.auxiliary_set import AuxiliarySet, is_list, learned_from
from anomalib_dpclip.checkpoint import Provenance, architecture_of, check_provenance, load_adapters, package_versions
from anomalib_dpclip.checkpoint_retention import retain_checkpoints
from anomalib_dpclip.class_names import UNKNOWN_CLASS, classes_of, domain_of
from anomalib_dpclip.clip_backbone import TextTower, load_clip
from anomalib_dpclip.export import DPCLIPExport
from anomalib_dpclip.leakage import warn_if_learned_from
from anomalib_dpclip.loss_watch import LossWatch
from anomalib_dpclip.metrics import field_metrics
from anomalib_dpclip.objective import Objective, training_objective
from anomalib_dpclip.post_processor import DPCLIPPostProcessor
from anomalib_dpclip.pre_processor import CLIP_MEAN, CLIPPreProcessor
from anomalib_dpclip.prompting import ABNORMAL_STATES, NORMAL_STATES, TEMPLATES
from anomalib_dpclip.prototypes import Prototypes, TokenDirections
from anomalib_dpclip.torch_model import DPCLIPModel
from anomalib_dpclip.unadapted import UnadaptedCLIP

logger = logging.getLogger(__name__)

EPOCHS = 20
"""Training epochs of the method, used unless ``--trainer.max_epochs`` says otherwise."""

LIGHTNING_DEFAULT_EPOCHS = 1000
"""What Lightning sets when nobody asks for a number of epochs; it cannot be told apart from asking for 1000."""

UNADAPTED = "clip"
"""Value of ``weights`` for the backbone without adapters."""

# Neither belongs to the model, and a path of one machine would keep a checkpoint from being loaded on another.
_NOT_HYPER_PARAMETERS = ["weights", "auxiliary", "auxiliary_root"]


class DPCLIP(DPCLIPExport, AnomalibModule):  # type: ignore[misc]  # the host's exports differ from Lightning's
    """Zero-shot anomaly detection with a frozen CLIP, channel purification and feature decoupling (DP-CLIP).

    Without `weights` it learns its adapters on an auxiliary labelled set, never on the target given by ``--data``, which is
    only validated and tested on. With `weights` nothing is learned: the validation split calibrates, the test split tests.

    Args:
        backbone: An open_clip model with a native vision transformer, or ``mini``, the small CLIP that comes with the package.
        pretrained: CLIP weights: an open_clip tag such as ``openai``, downloaded on first use, or a local file (``.pt``
            TorchScript archive or state dict, ``.safetensors``). ``random`` leaves them untrained (speed measurements only).
        quick_gelu: Use QuickGELU in the towers, with which OpenAI trained its weights; the published figures are GELU's.
        image_size: Side of the input in pixels, a multiple of the patch size. Default: 518 or the nearest multiple (mini: 140).
        tiles: For small defects on large images: validate, test and predict on images of so many times `image_size`, seen in
            overlapping tiles of `image_size`, (2 tiles - 1)^2 of them. Learning is not affected.
        weights: Trained adapters: ``.safetensors`` of this package, a Lightning ``.ckpt``, or a published ``.pth``; ``clip``
            for CLIP without adapters, the baseline.
        class_name: What the images show, for the prompts, e.g. ``metal nut``. Default: from the data set and its category.
        domain: ``industrial`` or ``medical``: blur of the maps and fusion of the scores. Default: from the data set.
        auxiliary: Labelled set to learn from: the name of one of anomalib's image data modules, with ``/category`` for one
            category only; the path of a JSON-lines file; a list of these; in Python also a data set or data module.
            Default: VisA, or MVTecAD when VisA is the target, or the six auxiliary materials when Surfaces is.
            ``synthetic`` needs no labelled set: it learns from the target's own normal training images, half of them with
            synthetic defects put in. Then the figures are one-class, not zero-shot: the target's normal images are known.
        auxiliary_root: Folder of the auxiliary set, or a list of one folder a set. Default: the data module's own.
        auxiliary_unmasked: Allow anomalous auxiliary images without masks; they train the classification loss only.
        shots: Learn from so many images of each category only, half of them anomalous where there are enough.
        batch_size: Auxiliary images a training step (and device).
        num_workers: Processes that read auxiliary images.
        adapter_layers: Layers (0-based) followed by an adapter. Default: the first quarter.
        tap_layers: Layers (1-based) after which patch tokens are tapped. Default: the quarter points of the depth.
        adapter_weight: Share of the adapted tokens after an adapted layer, in [0, 1].
        projector_activation: End the projectors with a LeakyReLU too.
        grn_pooling: What the layer adapters' GRN pools over: ``tokens`` of the image, ``batch`` (as published: predictions
            then depend on the batch), or ``none`` for no GRN at all.
        decoupling_weight: Weight of the decoupling loss; 0 leaves it out.
        prototype_momentum: Momentum of the global prototypes, in [0, 1].
        checkpointing: Compute layers again in the backward pass instead of remembering them: less memory, more time.
        compiled: Validate, test and predict under `torch.compile`, which is slow to start; whether it pays,
            ``dpclip bench inference --compiled true`` measures.
        learning_rate: Of Adam.
        milestones: Optimiser steps at which the learning rate is halved.
        normal_states: Phrases for a normal object, each with one ``{}`` for the class name.
        abnormal_states: Phrases for an anomalous object.
        templates: Sentences around the phrases.
        seed: Of initialisation, shuffling and augmentation, whatever the global seed is.
        pre_processor: Pre-processor, or whether to use the default one.
        post_processor: Post-processor, or whether to use the default one.
        evaluator: Evaluator, or whether to use the default one (image AUROC, AP, F1-max; pixel AUROC, AP, AUPRO, F1-max).
        visualizer: Visualizer, or whether to use the default one.

    Raises:
        ValueError: For arguments out of range, or weights that do not fit the backbone.
        FileNotFoundError: If CLIP's weights, `weights` or the auxiliary set are not there.

    Example:
        >>> model = DPCLIP(backbone="mini", class_name="brick")
        >>> model.model.anchors.shape
        torch.Size([64, 2])
    """

    model: DPCLIPModel
    prototypes: Prototypes
    pre_processor: Any
    post_processor: Any
    evaluator: Any

    def __init__(
        self,
        backbone: str = "ViT-L-14-336",
        pretrained: str = "openai",
        quick_gelu: bool = False,
        image_size: int | None = None,
        tiles: int = 1,
        weights: str | Path | None = None,
        class_name: str | None = None,
        domain: Domain | None = None,
        auxiliary: str | list[str] | AnomalibDataModule | AnomalibDataset | None = None,
        auxiliary_root: str | list[str] | None = None,
        auxiliary_unmasked: bool = False,
        shots: int | None = None,
        batch_size: int = 3,
        num_workers: int = 0,
        adapter_layers: list[int] | None = None,
        tap_layers: list[int] | None = None,
        adapter_weight: float = 0.1,
        projector_activation: bool = False,
        grn_pooling: Pooling = "tokens",
        decoupling_weight: float = 0.1,
        prototype_momentum: float = 0.999,
        checkpointing: bool = False,
        compiled: bool = False,
        learning_rate: float = 5e-4,
        milestones: Sequence[int] = (16000, 32000),
        normal_states: Sequence[str] = NORMAL_STATES,
        abnormal_states: Sequence[str] = ABNORMAL_STATES,
        templates: Sequence[str] = TEMPLATES,
        seed: int = 111,
        pre_processor: nn.Module | bool = True,
        post_processor: nn.Module | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        _require_positive(batch_size=batch_size, learning_rate=learning_rate)
        clip, text = load_clip(backbone, pretrained, image_size, quick_gelu)
        # Whoever calls the constructor must not find the global random state moved.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if weights == UNADAPTED:
                model: DPCLIPModel = UnadaptedCLIP(clip, domain or "industrial", tiles)
            else:
                model = DPCLIPModel(
                    clip,
                    adapter_layers,
                    tap_layers,
                    adapter_weight,
                    projector_activation,
                    grn_pooling,
                    domain or "industrial",
                    tiles,
                )
        super().__init__(
            pre_processor=CLIPPreProcessor(model.input_size) if pre_processor is True else pre_processor,
            post_processor=post_processor,
            evaluator=evaluator,
            visualizer=visualizer,
        )
        for name in _NOT_HYPER_PARAMETERS:
            if self.hparams.get(name) != UNADAPTED:
                self.hparams.pop(name, None)
        for name, value in self.hparams.items():
            self.hparams[name] = _plain(value)
        self.save_hyperparameters(self.hparams)  # renews the copy that loggers are given

        self.model = model
        self.prototypes = Prototypes(model.backbone.embed_dim, prototype_momentum)
        self.class_name = class_name
        self._chosen_domain = domain
        self.anchors_for = AnchorCache(
            text, partial(_load_text, backbone, pretrained, image_size, quick_gelu), normal_states, abnormal_states, templates
        )
        self._losses = LossWatch(interval=1)
        self._auxiliary_scores: AuxiliaryScores | None = None

        self.decoupling_weight = decoupling_weight
        model.checkpointing = checkpointing
        self.compiled = compiled
        self.learning_rate, self.milestones = learning_rate, tuple(milestones)
        self.auxiliary: AuxiliarySet | None = AuxiliarySet(auxiliary, auxiliary_root, shots, auxiliary_unmasked, seed)
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.provenance = Provenance(
            backbone=backbone,
            pretrained=Path(pretrained).name,
            fingerprint=model.backbone_fingerprint,
            architecture=architecture_of(model),
            versions=package_versions(),
        )
        self._set_domain(domain or "industrial")
        self.weights = weights
        if weights is not None and weights != UNADAPTED:
            self.provenance = load_adapters(self, weights)
            self._use_auxiliary_calibration()
        if weights is not None or class_name is not None:
            self._set_class(class_name or UNKNOWN_CLASS)

    # What anomalib asks of a model

    @property
    def learning_type(self) -> LearningType:
        """ONE_CLASS while there is something to learn (the host only fits those), ZERO_SHOT with trained adapters."""
        return LearningType.ONE_CLASS if self.weights is None else LearningType.ZERO_SHOT

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """No sanity check: its few batches would set thresholds. Everything else is the user's."""
        return {"num_sanity_val_steps": 0}

    @staticmethod
    def configure_pre_processor(image_size: tuple[int, int] | None = None) -> CLIPPreProcessor:
        """Bicubic resize (default 518 x 518) and CLIP's normalisation."""
        return CLIPPreProcessor(image_size or (518, 518))

    def configure_post_processor(self) -> DPCLIPPostProcessor:
        """Score fusion, normalisation and thresholds of the method."""
        return DPCLIPPostProcessor()

    @staticmethod
    def configure_evaluator() -> Evaluator:
        """The figures of the field."""
        return Evaluator(test_metrics=field_metrics())

    def configure_callbacks(self) -> Sequence[Callback]:
        """The host's components and, where pictures are wanted, a contact sheet of the test run, which needs their results."""
        callbacks: list[Any] = [*super().configure_callbacks()]  # type: ignore[misc]  # the host gives a list
        if self.visualizer is not None:
            from anomalib_dpclip.contact_sheet import ContactSheet

            callbacks.append(ContactSheet())
        return callbacks

    def val_dataloader(self) -> list:
        """None: lets the host predict on bare folders, where it would validate a zero-shot model first."""
        return []

    # Text anchors

    def _set_class(self, class_name: str) -> None:
        self.model.anchors.copy_(self.anchors_for(class_name))

    def _anchors_of(self, batch: ImageBatch) -> Tensor:
        """Anchors of each image's class ``(B, E, 2)``, or the current class's ``(E, 2)`` where images carry none."""
        names = getattr(batch, "class_name", None)
        if names is None or (self.class_name is not None and not self.training):
            return self.model.anchors
        return torch.stack([self.anchors_for(name) for name in names]).to(self.device, non_blocking=True)

    def _set_domain(self, domain: Domain) -> None:
        self.model.domain = domain
        if isinstance(self.post_processor, DPCLIPPostProcessor):
            self.post_processor.domain = domain

    def _follow_target(self) -> None:
        """Take class name and domain from the arguments, else from the data module; without either keep what is there."""
        self.model.compiled = self.compiled
        target = self._target()
        if self._chosen_domain is None and target is not None:
            self._set_domain(domain_of(target.name))
        if self.class_name is not None:
            self._set_class(self.class_name)
        elif len(names := classes_of(target) if target is not None else set()) == 1:
            self._set_class(*names)
        elif not self.model.anchors.any():
            if not names:  # of several, each image names its own
                logger.warning("no class name is known: prompts say 'object'. Name it with --model.class_name")
            self._set_class(UNKNOWN_CLASS)

    def _target(self) -> AnomalibDataModule | None:
        datamodule = getattr(self.trainer, "datamodule", None)
        return datamodule if isinstance(datamodule, AnomalibDataModule) else None

    # Learning

    def prepare_data(self) -> None:
        """Download the auxiliary set before it is learned from."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            self.auxiliary.prepare(self._target())

    def setup(self, stage: str) -> None:
        """Put the auxiliary set in the place of the target's training images; allow a target without validation images."""
        retain_checkpoints(self.trainer.strategy)
        target = self._target()
        if target is None:
            return
        # Instance attributes hide the data module's own methods; `teardown` uncovers them again.
        if not hasattr(target, "val_data"):
            target.val_dataloader = self.val_dataloader  # type: ignore[method-assign]
        if stage == "fit":
            if self.trainer.max_epochs == LIGHTNING_DEFAULT_EPOCHS:
                self.trainer.fit_loop.max_epochs = EPOCHS
            loader = self._auxiliary_loader(target)

            def train_dataloader() -> DataLoader:
                # Lightning tells the sampler the epoch after worker processes have begun to read: too late in a resumed run.
                loader.sampler.set_epoch(self.trainer.fit_loop.epoch_progress.current.processed)  # type: ignore[attr-defined]
                return loader

            target.train_dataloader = train_dataloader  # type: ignore[method-assign]

    def teardown(self, stage: str) -> None:
        """Leave the user's data module as it was, and the model fit for export."""
        del stage
        self.model.compiled = False
        for name in ("train_dataloader", "val_dataloader"):
            vars(self._target() or self).pop(name, None)

    def _auxiliary_loader(self, target: AnomalibDataModule) -> DataLoader:
        dataset = self.auxiliary.dataset(target, self.class_name, self.model.backbone.image_size, CLIP_MEAN)
        self.provenance = replace(
            self.provenance, learned_from=learned_from(dataset.samples), hyper_parameters=_plain_only(self.hparams)
        )
        return auxiliary_loader(
            dataset, self.batch_size, self.num_workers, self.seed, self.trainer.world_size, self.trainer.global_rank
        )

    def configure_optimizers(self) -> Any:
        """Adam over adapters and projectors; the learning rate halves at the milestones, counted in optimiser steps."""
        learned = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(learned, lr=self.learning_rate, betas=(0.5, 0.999))
        scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(self.milestones), gamma=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        """Start collecting the auxiliary images' scores, from which the adapters' default calibration is made."""
        # Looking at a value makes the host wait for an accelerator; on the CPU it costs nothing.
        self._losses = LossWatch(interval=1 if self.device.type == "cpu" else self.trainer.log_every_n_steps)  # type: ignore[attr-defined]
        self._auxiliary_scores = AuxiliaryScores(self.trainer.log_every_n_steps, self.device)  # type: ignore[attr-defined]

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Mapping[str, Any]:
        """``L = L_cls + sum over taps (L_seg) + 0.1 sum over taps (L_dec)``.

        Raises:
            FloatingPointError: If the loss is not finite; names the images.
        """
        anchors = self._anchors_of(batch)
        objective = training_objective(
            self.model,
            self.prototypes,
            batch.image,
            batch.gt_mask.bool(),
            batch.gt_label,
            anchors,
            getattr(batch, "has_mask", None),
            self.decoupling_weight,
        )
        self._losses.add(objective.total, batch_idx, list(batch.image_path))
        self._collect(objective, anchors, batch.gt_label)
        self.log("train_loss", objective.total, prog_bar=True, on_epoch=True, batch_size=len(batch))
        parts = {
            "train_loss_cls": objective.classification,
            "train_loss_seg": objective.segmentation,
            "train_loss_dec": objective.decoupling,
            "prototype_cosine": self.prototypes.cosine,
        }
        self.log_dict(parts, batch_size=len(batch))
        return {"loss": objective.total, "directions": objective.directions}

    def on_train_batch_end(self, outputs: Mapping[str, Any], batch: ImageBatch, batch_idx: int) -> None:
        """Move the prototypes, once a batch, after the optimiser's step."""
        del batch, batch_idx
        self.prototypes.update(TokenDirections(*outputs["directions"]))

    def on_train_epoch_end(self) -> None:
        """Set the adapters' default calibration; without a validation split it is the one in force."""
        self._losses.check()
        scores, self._auxiliary_scores = self._auxiliary_scores, None
        self.provenance = replace(self.provenance, epochs=self.current_epoch + 1)
        if isinstance(self.post_processor, DPCLIPPostProcessor) and scores is not None:
            self.post_processor.auxiliary_calibration.set_from(scores.statistics(), self.model.domain)
            if not sum(self.trainer.num_val_batches):
                self._use_auxiliary_calibration()

    def _use_auxiliary_calibration(self) -> None:
        if isinstance(self.post_processor, DPCLIPPostProcessor):
            self.post_processor.calibration.copy_from(self.post_processor.auxiliary_calibration)

    @torch.no_grad()
    def _collect(self, objective: Objective, anchors: Tensor, label: Tensor) -> None:
        if self._auxiliary_scores is not None:
            grid = self.model.backbone.grid
            maps = anomaly_map(difference_grid(objective.taps, anchors, grid, self.model.domain))
            masks = (objective.token_mask == 1).unflatten(1, grid)
            self._auxiliary_scores.add(maps, detection_score(objective.detection, anchors), label, masks)

    # Validation, test and prediction

    def on_validation_start(self) -> None:
        """Make the target's text anchors."""
        self._follow_target()

    def on_test_start(self) -> None:
        """Make the target's text anchors; warn if the adapters have seen the target, or nothing is calibrated."""
        self._follow_target()
        target = self._target()
        if target is not None:
            warn_if_learned_from(self.provenance.learned_from, target)
        self._warn_if_uncalibrated()

    def on_predict_start(self) -> None:
        """Make the target's text anchors; warn if nothing is calibrated."""
        self._follow_target()
        self._warn_if_uncalibrated()

    def _warn_if_uncalibrated(self) -> None:
        if isinstance(self.post_processor, DPCLIPPostProcessor) and not self.post_processor.calibration.is_set:
            logger.warning(
                "these adapters carry no calibration and there is no validation split: the threshold is 0.5, the point of "
                "indifference. Run `anomalib validate` on images of the target for a better one"
            )

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> ImageBatch:
        """Raw maps and detection scores, each image against the anchors of its class."""
        del batch_idx
        return batch.update(**self.model.predict(batch.image, self._anchors_of(batch))._asdict())

    def test_step(self, batch: ImageBatch, batch_idx: int, *args: Any, **kwargs: Any) -> ImageBatch:
        """As `validation_step`."""
        del args, kwargs
        return self.validation_step(batch, batch_idx)

    def predict_step(self, batch: ImageBatch, batch_idx: int, dataloader_idx: int = 0) -> ImageBatch:
        """As `validation_step`."""
        del dataloader_idx
        return self.validation_step(batch, batch_idx)

    # Saving and loading

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Everything but the frozen backbone, which comes from its own weights."""
        state = super().state_dict(*args, **kwargs)
        prefix = kwargs.get("prefix", args[1] if len(args) > 1 else "") + "model.backbone."
        for name in [name for name in state if name.startswith(prefix)]:
            del state[name]
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a state that has no backbone; anything else that is missing or too much is an error."""
        backbone = {f"model.backbone.{name}": value for name, value in self.model.backbone.state_dict().items()}
        return super().load_state_dict({**backbone, **state_dict}, strict=strict, assign=assign)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add where the adapters come from, and what the anchors show."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["dpclip"] = asdict(self.provenance) | {"domain": self.model.domain}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over provenance and domain.

        Raises:
            ValueError: If the checkpoint is not DP-CLIP's, or was made with another backbone.
        """
        super().on_load_checkpoint(checkpoint)
        saved = checkpoint.get("dpclip")
        if saved is None:
            raise ValueError("the checkpoint is not one of DPCLIP: it lacks its provenance. Which model wrote it?")
        self.provenance = Provenance.from_dict(saved, Path("the checkpoint"))
        check_provenance(self.provenance, self.model, Path("the checkpoint"))
        size = getattr(self.pre_processor, "image_size", self.model.input_size)
        if size != self.model.input_size:
            raise ValueError(
                f"the checkpoint is calibrated on images of {size}, the model takes {self.model.input_size}: give it as "
                f"--model.weights instead of --ckpt_path to calibrate anew, or set --model.image_size and --model.tiles as in "
                f"training"
            )
        if self._chosen_domain is None:
            self._set_domain(saved.get("domain", "industrial"))


def _load_text(backbone: str, pretrained: str, image_size: int | None, quick_gelu: bool) -> TextTower:
    return load_clip(backbone, pretrained, image_size, quick_gelu)[1]


def _require_positive(**values: float) -> None:
    for name, value in values.items():
        if value <= 0:
            raise ValueError(f"{name} must be positive, not {value}")


def _plain(value: Any) -> Any:
    """A value as a checkpoint may hold it."""
    return list(value) if is_list(value) else value


def _plain_only(values: Mapping[str, Any]) -> dict[str, Any]:
    """What an adapter file can tell of arguments: a component given as an object stays behind."""
    return {name: value for name, value in values.items() if isinstance(value, str | int | float | bool | list | type(None))}
