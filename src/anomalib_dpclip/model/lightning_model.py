"""DP-CLIP as an anomalib model: its arguments, its parts, and Lightning's hooks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anomalib import LearningType
from anomalib.data import AnomalibDataModule, AnomalibDataset, ImageBatch, InferenceBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.visualization import Visualizer
from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from anomalib_dpclip.adapter_files.adapter_file import PROVENANCE_KEY, UNADAPTED
from anomalib_dpclip.adapter_files.hub import local_file
from anomalib_dpclip.adapter_files.save_and_load import load_adapters
from anomalib_dpclip.auxiliary.auxiliary_set import AuxiliarySet
from anomalib_dpclip.auxiliary.dataset import AuxiliaryDataset
from anomalib_dpclip.callbacks.default_callbacks import default_callbacks
from anomalib_dpclip.data.image_checks import require_evaluation_images
from anomalib_dpclip.data_sets.domain import Domain
from anomalib_dpclip.deploy.export import DPCLIPExport
from anomalib_dpclip.method.prototypes import Prototypes
from anomalib_dpclip.metrics import field_metrics
from anomalib_dpclip.model import arguments, checkpointing, good_images, settled_thresholds
from anomalib_dpclip.model.configuration import given_values, resolve
from anomalib_dpclip.model.parts import become
from anomalib_dpclip.model.scoring import PrepareScorer
from anomalib_dpclip.model.training import learning
from anomalib_dpclip.model.training.carried import AuxiliaryCalibration
from anomalib_dpclip.post_processing.post_processor import DPCLIPPostProcessor
from anomalib_dpclip.pre_processing.pre_processor import CLIPPreProcessor
from anomalib_dpclip.scorers.references import References
from anomalib_dpclip.scorers.region import Region
from anomalib_dpclip.scorers.scorer import Scorer
from anomalib_dpclip.scorers.text_scorer import TextScorer
from anomalib_dpclip.visualization.contact_sheet import ContactSheet
from anomalib_dpclip.visualization.visualizer import PictureVisualizer


class DPCLIP(DPCLIPExport, AnomalibModule):  # type: ignore[misc]
    """Zero-shot anomaly detection with a frozen CLIP, channel purification and feature decoupling (DP-CLIP).

    Without `weights` it learns its adapters on an auxiliary labelled set, never on the target given by ``--data``, which is
    only validated and tested on. With `weights` nothing is learned: the validation split calibrates, the test split tests.

    Args:
        backbone: An open_clip model with a vision transformer (``dpclip backbones`` lists them), or ``mini``, the small CLIP
            that comes with the package. Default: that of the file given as `weights`, else ``ViT-L-14-336``.
        pretrained: CLIP weights: an open_clip tag, downloaded on first use, or a local file (``.pt`` TorchScript archive or
            state dict, ``.safetensors``). ``random`` leaves them untrained (speed measurements only). Default: as the file
            given as `weights` says, else ``openai``.
        weights: Trained adapters: ``.safetensors`` of this package, a Lightning ``.ckpt``, or a published ``.pth``;
            ``hf://owner/name[@revision][/file.safetensors]`` on the Hugging Face hub; ``clip`` for CLIP without adapters, the
            baseline.
        class_name: What the images show, for the prompts, e.g. ``metal nut``. Default: from the data set and its category.
        domain: ``industrial`` or ``medical``: blur of the maps and fusion of the scores. Default: from the data set.
        image_size: Side of the input in pixels, a multiple of the patch size. Default: as the file given as `weights` says,
            else 518 or the nearest multiple (mini: 140).
        tiles: Times `image_size` of the images that are validated, tested and predicted, for small defects on large images:
            they are seen in overlapping tiles of `image_size`, (2 tiles - 1)^2 of them. Learning is not affected. Default: as
            the file given as `weights` says, else 1.
        k_shot: Number of good images of the target's training split (or of `few_shot_source`) to score by too, chosen by
            chance. Then the target's normal images are known: no zero-shot result.
        few_shot_source: Folder of good photos of the target; without `k_shot` all of them are taken.
        lot: Whether the images that are tested or predicted are compared with each other (no good photo and no label is
            needed, but a lot of mostly normal images). All of them are seen before the first is scored.
        memory_backbone: Network whose features good photos and the lot are compared by: ``efficientnet_lite0`` (in the extra
            ``photos``, no download), or the timm name of another one. Default: the backbone's own.
        auxiliary: Labelled set to learn from: the name of one of anomalib's image data modules, with ``/category`` for one
            category only; the path of a JSON-lines file; a list of these; in Python also a data set or data module.
            Default: VisA, or MVTecAD when VisA is the target, or the six auxiliary materials when Surfaces is.
            ``synthetic`` needs no labelled set: it learns from the target's own normal training images, half of them with
            synthetic defects put in. Then the results are one-class, not zero-shot: the target's normal images are known.
        shots: Number of images of each auxiliary category to learn from, half of them anomalous where there are enough.
        batch_size: Number of auxiliary images a training step (and device).
        false_alarm_rate: Probability, in [0, 1), with which a new normal image of the same source is called anomalous at most:
            thresholds are then set from normal images alone; 0.01 takes 99 images, 0.05 takes 19. Default: thresholds of the
            best F1 score.
        seed: Seed of initialisation, shuffling, augmentation and choices. Default: the global seed, if one other than 0 was
            set (``--seed_everything 7``, or the seeds of ``anomalib benchmark``), else 111.
        clip: How CLIP's weights are read, see `ClipOptions`.
        architecture: What adapters only make sense with, see `Architecture`.
        prompts: Sentences that stand for a class, see `Prompts`.
        training: How adapters learn, see `Training`.
        memory: How good photos and the lot are compared, see `MemoryOptions`.
        region: What is scored and shown of an image, see `RegionOptions`.
        export: What goes into an exported file, see `ExportOptions`.
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

    prototypes: Prototypes

    def __init__(
        self,
        backbone: str | None = None,
        pretrained: str | None = None,
        weights: str | Path | None = None,
        class_name: str | None = None,
        domain: Domain | None = None,
        image_size: int | None = None,
        tiles: int | None = None,
        k_shot: int = 0,
        few_shot_source: str | Path | None = None,
        lot: bool = False,
        memory_backbone: str | None = None,
        auxiliary: str | list[str] | AnomalibDataModule | AnomalibDataset | None = None,
        shots: int | None = None,
        batch_size: int = 3,
        false_alarm_rate: float | None = None,
        seed: int | None = None,
        clip: arguments.ClipOptions | None = None,
        architecture: arguments.Architecture | None = None,
        prompts: arguments.Prompts | None = None,
        training: arguments.Training | None = None,
        memory: arguments.MemoryOptions | None = None,
        region: arguments.RegionOptions | None = None,
        export: arguments.ExportOptions | None = None,
        pre_processor: nn.Module | bool = True,
        post_processor: nn.Module | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        grouped: dict[str, Any] = {"training": training, "memory": memory, "region": region, "prompts": prompts}
        groups = arguments.groups_of(**grouped, architecture=architecture, clip=clip, export=export)
        self.training_options, self.memory_options = groups["training"], groups["memory"]
        self.region_options, self.export_options = groups["region"], groups["export"]
        self.chosen_seed, self.seed = seed, arguments.seed_or_global(seed)
        self.weights, self.lot, self.batch_size = weights, lot, batch_size
        arguments.check_flat(batch_size, self.seed, k_shot, tiles, reads_target=bool(k_shot or few_shot_source or lot))
        flat: dict[str, Any] = {"backbone": backbone, "pretrained": pretrained, "class_name": class_name, "domain": domain}
        flat |= {"image_size": image_size, "tiles": tiles, "memory_backbone": memory_backbone}
        self.given = given_values(groups, **flat)
        if post_processor is True:
            post_processor = DPCLIPPostProcessor(false_alarm_rate=false_alarm_rate)
        elif false_alarm_rate is not None:
            raise ValueError("false_alarm_rate belongs to the default post-processor: give your own one its rate itself")
        file = None if weights is None or weights == UNADAPTED else local_file(weights)
        configuration = resolve(self.given, file)
        super().__init__(
            # Of any size until the backbone has said which it takes.
            pre_processor=CLIPPreProcessor((1, 1)) if pre_processor is True else pre_processor,
            post_processor=post_processor,
            evaluator=Evaluator(test_metrics=field_metrics()) if evaluator is True else evaluator,
            visualizer=PictureVisualizer() if visualizer is True else visualizer,
        )
        root, unmasked = self.training_options.auxiliary_root, self.training_options.auxiliary_unmasked
        self.auxiliary = AuxiliarySet(auxiliary, root, shots, unmasked, self.seed)
        self.auxiliary_dataset: AuxiliaryDataset | None = None
        self.references = References(k_shot, few_shot_source, self.seed)
        self.before_references: Any = None
        self.is_trained_here, self.went_on_from = False, None
        self.region = Region()
        become(self, configuration)
        if file is not None:
            load_adapters(self, file, overridden=self.given)
        if weights is not None or class_name is not None:
            self.target.resolve_class(None, is_run=False)

    def text_scorer(self, region: Region | None = None) -> TextScorer:
        """A scorer by the text alone, as the model is now; of another region than the target's where one is given."""
        return TextScorer(self.model, region or self.region, self.configuration.tiles, self.image_size)

    @property
    def scorer(self) -> Scorer:
        """How images are scored; what it has learned is kept in checkpoints."""
        return self._scorer

    @scorer.setter
    def scorer(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.scorer_state = None if scorer.state is None else scorer.state.to(self.model.anchors.device)

    @property
    def attached_trainer(self) -> Any:
        """The trainer of a run; ``None`` outside of one."""
        try:
            return self.trainer
        except RuntimeError:  # Lightning's word for a model without one
            return None

    @property
    def datamodule(self) -> AnomalibDataModule | None:
        """The user's data module, if there is one."""
        datamodule = getattr(self.attached_trainer, "datamodule", None)
        return datamodule if isinstance(datamodule, AnomalibDataModule) else None

    @property
    def min_area(self) -> int:
        """Pixels of the photo that an anomalous region has at least to be listed and shown."""
        return self.configuration.min_area

    @property
    def learning_type(self) -> LearningType:
        """ONE_CLASS while there is something to learn (anomalib only fits those), then ZERO_SHOT, or FEW_SHOT with photos."""
        if self.weights is None:
            return LearningType.ONE_CLASS
        return LearningType.FEW_SHOT if self.references.are_named or self.scorer.name == "memory" else LearningType.ZERO_SHOT

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """No sanity check: its few batches would set thresholds. The epochs, if an argument says how many."""
        epochs = self.training_options.epochs
        return {"num_sanity_val_steps": 0, **({} if epochs is None else {"max_epochs": epochs})}

    def configure_callbacks(self) -> Sequence[Callback]:
        """Components that are callbacks, and what watches a run, in the order in which they are told of it."""
        components: Any = super().configure_callbacks()
        own = [learning.LearnFromAuxiliary(), AuxiliaryCalibration(), PrepareScorer()]
        sheet = [] if self.visualizer is None else [ContactSheet()]
        return [*components, *own, *default_callbacks(self.attached_trainer), *sheet]

    # Methods that have a file of their own
    set_references = good_images.set_references
    add_good_images = good_images.extend_memory
    prepare_export = good_images.prepare_export
    prediction_digest = good_images.prediction_digest
    is_uncalibrated = property(settled_thresholds.is_uncalibrated)
    threshold_remarks = settled_thresholds.remarks
    standing, most_like = settled_thresholds.standing, good_images.most_like
    train_dataloader = learning.auxiliary_batches
    configure_optimizers = learning.optimizer_and_schedule
    training_step = learning.training_step

    def set_domain(self, domain: Domain) -> None:
        """Make a domain's blur and score fusion the current ones."""
        self.model.domain = domain
        settled_thresholds.weigh_unset(self)

    def adopt_adapters(self, source: str) -> None:
        """Take adapters that somebody has put into the model, from a source, for trained: nothing is learned any more."""
        self.weights = source
        settled_thresholds.restore_adapters_calibration(self, source)

    def prepare_data(self) -> None:
        """Download the auxiliary set before it is learned from."""
        require_evaluation_images(self.datamodule)
        if self.trainer.state.fn == TrainerFn.FITTING and self.datamodule is not None:
            self.auxiliary.prepare(self.datamodule)

    def val_dataloader(self) -> list:
        """None: lets anomalib predict on bare folders, where it would validate a zero-shot model first."""
        return []

    def validation_step(self, batch: ImageBatch, batch_idx: int, dataloader_idx: int = 0) -> ImageBatch:  # noqa: ARG002
        """Raw maps and image scores, each image against the anchors of its class."""
        self.region.require_sizes(batch.image_path)
        anchors = self.target.anchors_of(batch, self.device, follow_images=False)
        return batch.update(**self.scorer.score(batch.image, anchors, batch.image_path)._asdict())

    test_step = predict_step = validation_step  # type: ignore[assignment]

    def forward(self, batch: Tensor, *_: Any, **__: Any) -> InferenceBatch:
        """Images ``(B, 3, H, W)`` in [0, 1] to scores, labels and maps, of the current class."""
        images = self.pre_processor(batch) if self.pre_processor else batch
        raw = self.scorer.score(images, self.model.anchors)
        return self.post_processor(raw) if self.post_processor else raw

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Everything but the frozen networks, which come from weights of their own."""
        state, prefix = super().state_dict(*args, **kwargs), kwargs.get("prefix", "")
        for name in [name for name in state if name.removeprefix(prefix).startswith(checkpointing.FROZEN)]:
            del state[name]  # in place: a caller may have given it
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a state without frozen networks; anything else that is missing or too much is an error."""
        state = checkpointing.make_room(self, dict(state_dict))
        keys = super().load_state_dict(state, strict=strict, assign=assign)
        if self.target.class_name is not None:  # what the user says comes before what the checkpoint's anchors are of
            self.target.set_class(self.target.class_name)
        return keys

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add where the adapters come from, and what the thresholds in force are of."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[PROVENANCE_KEY] = checkpointing.provenance_entry(self)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Become what a checkpoint is of, as far as no argument says otherwise."""
        if checkpointing.keep_what_was_trained(self, checkpoint):
            return
        checkpointing.follow_checkpoint(self, checkpoint)
        super().on_load_checkpoint(checkpoint)
        checkpointing.restore_provenance(self, checkpoint)
