"""DP-CLIP as an anomalib model: its arguments, and the parts it is made of. The hooks are in the classes it inherits from."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from anomalib import LearningType
from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.visualization import Visualizer
from torch import nn

from anomalib_dpclip.adapter_files.adapter_file import Provenance
from anomalib_dpclip.adapter_files.compatibility import architecture_of
from anomalib_dpclip.adapter_files.save_and_load import load_adapters
from anomalib_dpclip.auxiliary.auxiliary_set import AuxiliarySet
from anomalib_dpclip.clip.loading import load_clip, load_text_tower
from anomalib_dpclip.clip.preprocessing import Preprocessing
from anomalib_dpclip.clip.pretraining import pretraining_of
from anomalib_dpclip.deploy.export import DPCLIPExport
from anomalib_dpclip.files.measured_by import package_versions
from anomalib_dpclip.files.seeded import seeded
from anomalib_dpclip.method.adapters import Pooling
from anomalib_dpclip.method.anchor_cache import AnchorCache
from anomalib_dpclip.method.anomaly_map import TEMPERATURE, Detection
from anomalib_dpclip.method.class_names import UNKNOWN_CLASS
from anomalib_dpclip.method.domain import DEFAULT_DOMAIN, Domain
from anomalib_dpclip.method.prompting import ABNORMAL_STATES, NORMAL_STATES, TEMPLATES
from anomalib_dpclip.method.prototypes import Prototypes
from anomalib_dpclip.method.torch_model import DPCLIPModel
from anomalib_dpclip.method.unadapted import UNADAPTED, UnadaptedCLIP
from anomalib_dpclip.model.arguments import AdaptersArguments, check_ranges, chosen_post_processor, class_list, file_of
from anomalib_dpclip.model.checkpointing import SavesAdapters
from anomalib_dpclip.model.default_parts import DefaultParts
from anomalib_dpclip.model.evaluation import EvaluatesTarget
from anomalib_dpclip.model.learning import LearnsAdapters
from anomalib_dpclip.model.seed import seed_or_global
from anomalib_dpclip.pre_processing.pre_processor import CLIPPreProcessor
from anomalib_dpclip.references.reference_images import check_references
from anomalib_dpclip.references.reference_memory import MEMORY_TOKENS


class DPCLIP(LearnsAdapters, EvaluatesTarget, SavesAdapters, DPCLIPExport, DefaultParts, AnomalibModule):  # type: ignore[misc]
    """Zero-shot anomaly detection with a frozen CLIP, channel purification and feature decoupling (DP-CLIP).

    Without `weights` it learns its adapters on an auxiliary labelled set, never on the target given by ``--data``, which is
    only validated and tested on. With `weights` nothing is learned: the validation split calibrates, the test split tests.

    Args:
        backbone: An open_clip model with a vision transformer (``dpclip backbones`` lists them), or ``mini``, the small CLIP
            that comes with the package. Default: that of the file given as `weights`, else ``ViT-L-14-336``.
        pretrained: CLIP weights: an open_clip tag, downloaded on first use, or a local file (``.pt`` TorchScript archive or
            state dict, ``.safetensors``). ``random`` leaves them untrained (speed measurements only). Default: as the file
            given as `weights` says, else ``openai``.
        quick_gelu: Whether the towers use QuickGELU instead of GELU. Default: as the file given as `weights` says, else as the
            CLIP weights were trained; ``openai`` weights run with GELU, as in the published results, though they were trained
            with QuickGELU.
        image_size: Side of the input in pixels, a multiple of the patch size. Default: 518 or the nearest multiple (mini: 140).
        tiles: For small defects on large images: validate, test and predict on images of so many times `image_size`, seen in
            overlapping tiles of `image_size`, (2 tiles - 1)^2 of them. Learning is not affected.
        weights: Trained adapters: ``.safetensors`` of this package, a Lightning ``.ckpt``, or a published ``.pth``;
            ``hf://owner/name[@revision][/file.safetensors]`` on the Hugging Face hub; ``clip`` for CLIP without adapters, the
            baseline.
        k_shot: Judge also by so many normal images of the target's training split, chosen by chance (or of `few_shot_source`).
            Then the target's normal images are known: no zero-shot result.
        few_shot_source: Folder of photos of what the target should look like; without `k_shot` all of them are taken.
        memory_tokens: Patch tokens of those photos to remember at each tap; of more, so many are chosen.
        lot: Let the images that are tested or predicted judge each other (no normal photo and no label is needed, but a lot of
            mostly normal images). All of them are seen before the first is judged.
        class_name: What the images show, for the prompts, e.g. ``metal nut``. Default: from the data set and its category.
        domain: ``industrial`` or ``medical``: blur of the maps and fusion of the scores. Default: from the data set.
        min_area: Pixels of the photo that an anomalous region has at least to be listed and shown; smaller ones are specks.
        ignore: Picture of the photos' size, white where nothing is to be judged (a fixture, a timestamp): what lies there
            counts neither for maps, scores and thresholds nor for metrics, in exported files as well.
        auxiliary: Labelled set to learn from: the name of one of anomalib's image data modules, with ``/category`` for one
            category only; the path of a JSON-lines file; a list of these; in Python also a data set or data module.
            Default: VisA, or MVTecAD when VisA is the target, or the six auxiliary materials when Surfaces is.
            ``synthetic`` needs no labelled set: it learns from the target's own normal training images, half of them with
            synthetic defects put in. Then the results are one-class, not zero-shot: the target's normal images are known.
        auxiliary_root: Folder of the auxiliary set, or a list of one folder a set. Default: the data module's own.
        auxiliary_unmasked: Allow anomalous auxiliary images without masks; they train the classification loss only.
        shots: Learn from so many images of each category only, half of them anomalous where there are enough.
        batch_size: Auxiliary images a training step (and device).
        num_workers: Processes that read auxiliary images.
        adapter_layers: Layers (0-based) followed by an adapter. This and the next four: by default as the file given as
            `weights` says, else the first quarter.
        tap_layers: Layers (1-based) after which patch tokens are tapped, else the quarter points of the depth.
        adapter_weight: Share of the adapted tokens after an adapted layer, in [0, 1], else 0.1.
        projector_activation: End the projectors with a LeakyReLU too, else they do not.
        grn_pooling: What the layer adapters' GRN pools over: ``tokens`` of the image, ``batch`` (as published: predictions
            then depend on the batch), or ``none`` for no GRN at all, else ``tokens``.
        detection: What the image score knows beside the map's peak: ``projector``, the detection projector as published, or
            ``class_token``, CLIP's own zero-shot score of the whole image, which every pass has computed anyway. Default: as
            the file given as `weights` says, else ``projector``.
        decoupling_weight: Weight of the decoupling loss; 0 leaves it out.
        prototype_momentum: Momentum of the global prototypes, in [0, 1].
        checkpointing: Compute layers again in the backward pass instead of remembering them: less memory, more time.
        learning_rate: Of Adam.
        milestones: Optimiser steps at which the learning rate is halved.
        normal_states: Phrases for a normal object, each with one ``{}`` for the class name.
        abnormal_states: Phrases for an anomalous object.
        templates: Sentences around the phrases.
        seed: Of initialisation, shuffling and augmentation. Default: the global seed, if one other than 0 was set
            (``--seed_everything 7``, or the seeds of ``anomalib benchmark``), else 111.
        temperature: Factor on the similarities in the segmentation loss; ``backbone`` for the one that the backbone learned.
        pretrained_tag: What a local file given as `pretrained` is: the open_clip tag that says how its weights were trained.
        image_mean: Mean of the three image channels, instead of what the weights were trained with.
        image_std: Standard deviation, likewise.
        tokenizer: Folder of the text tower's tokenizer, for backbones whose tokenizer is not part of open_clip (SigLIP, CLIPA).
        false_alarm_rate: Set thresholds from normal validation images alone, so that a new normal image of the same source is
            called anomalous with at most this probability, in [0, 1); 0.01 takes 99 images, 0.05 takes 19. Default: thresholds
            of the best F1 score.
        export_classes: Classes of one exported file, ``"metal nut,bolt,screw"``, of which it takes the number as a second,
            optional input. Default: the one class.
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

    def __init__(
        self,
        backbone: str | None = None,
        pretrained: str | None = None,
        quick_gelu: bool | None = None,
        image_size: int | None = None,
        tiles: int = 1,
        weights: str | Path | None = None,
        k_shot: int = 0,
        few_shot_source: str | Path | None = None,
        memory_tokens: int = MEMORY_TOKENS,
        lot: bool = False,
        class_name: str | None = None,
        domain: Domain | None = None,
        min_area: int = 0,
        ignore: str | Path | None = None,
        auxiliary: str | list[str] | AnomalibDataModule | AnomalibDataset | None = None,
        auxiliary_root: str | list[str] | None = None,
        auxiliary_unmasked: bool = False,
        shots: int | None = None,
        batch_size: int = 3,
        num_workers: int = 0,
        adapter_layers: list[int] | None = None,
        tap_layers: list[int] | None = None,
        adapter_weight: float | None = None,
        projector_activation: bool | None = None,
        grn_pooling: Pooling | None = None,
        detection: Detection | None = None,
        decoupling_weight: float = 0.1,
        prototype_momentum: float = 0.999,
        checkpointing: bool = False,
        learning_rate: float = 5e-4,
        milestones: Sequence[int] = (16000, 32000),
        normal_states: Sequence[str] = NORMAL_STATES,
        abnormal_states: Sequence[str] = ABNORMAL_STATES,
        templates: Sequence[str] = TEMPLATES,
        seed: int | None = None,
        temperature: float | Literal["backbone"] = TEMPERATURE,
        pretrained_tag: str | None = None,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        tokenizer: str | None = None,
        false_alarm_rate: float | None = None,
        export_classes: str | list[str] | None = None,
        pre_processor: nn.Module | bool = True,
        post_processor: nn.Module | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        current_seed = seed_or_global(seed)
        check_ranges(batch_size, learning_rate, decoupling_weight, current_seed, temperature, min_area)
        check_references(k_shot, few_shot_source, memory_tokens, lot, tiles)
        layers = (adapter_layers, tap_layers)
        given = AdaptersArguments(
            backbone, pretrained, quick_gelu, *layers, adapter_weight, projector_activation, grn_pooling, detection
        )
        file = file_of(weights)
        chosen = given.resolved(file)
        clip_name: tuple[Any, Any] = (chosen.backbone, chosen.pretrained)
        preprocessing = pretraining_of(*clip_name, pretrained_tag).preprocessing.replaced(image_mean, image_std)
        tower = (*clip_name, image_size, chosen.quick_gelu, pretrained_tag, tokenizer)
        clip, text = load_clip(*tower)
        # Whoever calls the constructor must not find the global random state moved.
        with seeded(current_seed):
            if weights == UNADAPTED:
                model: DPCLIPModel = UnadaptedCLIP(clip, domain=domain or DEFAULT_DOMAIN, tiles=tiles)
            else:
                model = DPCLIPModel(clip, domain=domain or DEFAULT_DOMAIN, tiles=tiles, **chosen.architecture)
        super().__init__(
            pre_processor=CLIPPreProcessor(model.input_size, preprocessing) if pre_processor is True else pre_processor,
            post_processor=chosen_post_processor(post_processor, false_alarm_rate),
            evaluator=evaluator,
            visualizer=visualizer,
        )
        self.keep_hyper_parameters(chosen._asdict())
        self.model = model
        self.model.checkpointing = checkpointing
        self.prototypes = Prototypes(model.backbone.embed_dim, prototype_momentum)
        self.anchors_for = AnchorCache(text, partial(load_text_tower, *tower), normal_states, abnormal_states, templates)
        self.class_name, self.chosen_domain, self.chosen_detection = class_name, domain, detection
        self.weights, self.min_area = weights, min_area
        self.auxiliary = AuxiliarySet(auxiliary, auxiliary_root, shots, auxiliary_unmasked, current_seed)
        self.batch_size, self.num_workers = batch_size, num_workers
        self.k_shot, self.few_shot_source, self.memory_tokens, self.lot = k_shot, few_shot_source, memory_tokens, lot
        self.chosen_seed, self.seed, self.export_classes = seed, current_seed, class_list(export_classes)
        self.decoupling_weight, self.learning_rate, self.milestones = decoupling_weight, learning_rate, tuple(milestones)
        self.temperature = clip.logit_scale.exp().item() if temperature == "backbone" else temperature
        self.provenance = self._untrained(*clip_name, getattr(self.pre_processor, "preprocessing", preprocessing))
        self.set_domain(domain or DEFAULT_DOMAIN)
        if file is not None:
            load_adapters(self, file)
        self.ignore_region(ignore)
        if weights is not None or class_name is not None:
            self.set_class(class_name or UNKNOWN_CLASS)

    def _untrained(self, backbone: str, pretrained: str, preprocessing: Preprocessing) -> Provenance:
        """Provenance of adapters that have learned nothing yet."""
        return Provenance(
            backbone=backbone,
            pretrained=Path(pretrained).name,
            fingerprint=self.model.backbone_fingerprint,
            preprocessing=preprocessing.as_dict(),
            architecture=architecture_of(self.model),
            versions=package_versions(),
        )

    @property
    def learning_type(self) -> LearningType:
        """ONE_CLASS while there is something to learn (anomalib only fits those), then ZERO_SHOT, or FEW_SHOT with photos."""
        if self.weights is None:
            return LearningType.ONE_CLASS
        return LearningType.FEW_SHOT if self.has_references else LearningType.ZERO_SHOT
