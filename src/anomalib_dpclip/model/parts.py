"""The networks that a configuration asks for, built and put into a model."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from anomalib_dpclip.adapter_files.adapter_file import UNADAPTED, Provenance
from anomalib_dpclip.adapter_files.save_and_load import architecture_of
from anomalib_dpclip.clip.feature_tower import FeatureTower, load_feature_tower
from anomalib_dpclip.clip.loading import load_clip, load_text_tower
from anomalib_dpclip.clip.preprocessing import Preprocessing
from anomalib_dpclip.clip.pretraining import pretraining_of
from anomalib_dpclip.data_sets.domain import DEFAULT_DOMAIN
from anomalib_dpclip.files.measured_by import package_versions
from anomalib_dpclip.files.seeded import seeded
from anomalib_dpclip.method.prompting import AnchorCache
from anomalib_dpclip.method.prototypes import Prototypes
from anomalib_dpclip.method.torch_model import DPCLIPModel
from anomalib_dpclip.method.unadapted import UnadaptedCLIP
from anomalib_dpclip.model.configuration import CONFIGURED, Configuration, portable_arguments
from anomalib_dpclip.model.target import Target
from anomalib_dpclip.pre_processing.pre_processor import CLIPPreProcessor, require_whole_images


class Parts(NamedTuple):
    """What a configuration, whose image size is known then, is built into; adapters have learned nothing yet."""

    configuration: Configuration
    model: DPCLIPModel
    anchors_for: AnchorCache
    feature_tower: FeatureTower | None
    preprocessing: Preprocessing
    image_size: tuple[int, int]  # height and width of what is scored
    logit_scale: float


def build_parts(module: Any, configuration: Configuration) -> Parts:
    """Build the networks of a configuration, for a `DPCLIP` whose other arguments count here too."""
    known = configuration
    weights = known.backbone, known.pretrained
    tower: tuple[Any, ...] = (*weights, known.image_size, known.quick_gelu, known.pretrained_tag, known.tokenizer)
    clip, text = load_clip(*tower)
    domain: Any = known.domain or DEFAULT_DOMAIN
    architecture = {name: getattr(known, name) for name in CONFIGURED["architecture"]}
    with seeded(module.seed):  # whoever calls a constructor must not find the global random state moved
        is_adapted = module.weights != UNADAPTED
        model = DPCLIPModel(clip, domain=domain, **architecture) if is_adapted else UnadaptedCLIP(clip, domain=domain)
    options = (module.memory_options.weights, known.memory_image_size, known.memory_layers)
    feature_tower = None if known.memory_backbone is None else load_feature_tower(known.memory_backbone, *options)
    height, width = (known.tiles * side for side in model.backbone.image_size)
    if feature_tower is not None:  # photos are resized once, for whichever network wants the larger ones
        height, width = max(height, feature_tower.image_size[0]), max(width, feature_tower.image_size[1])
    anchors_for = AnchorCache(
        text, partial(load_text_tower, *tower), known.normal_states, known.abnormal_states, known.templates
    )
    preprocessing = pretraining_of(*weights, known.pretrained_tag).preprocessing.replaced(known.image_mean, known.image_std)
    known = replace(known, image_size=model.backbone.image_size[0])
    return Parts(known, model, anchors_for, feature_tower, preprocessing, (height, width), clip.logit_scale.exp().item())


def use_parts(module: Any, parts: Parts) -> None:
    """Have a `DPCLIP` be what a configuration is: its networks are new, and have learned nothing."""
    configuration, options, domain = parts.configuration, module.training_options, module.given.get("domain")
    module.configuration, module.image_size = configuration, parts.image_size
    module.model, module.feature_tower = parts.model, parts.feature_tower
    module.model.checkpointing = options.checkpointing
    module.provenance = Provenance(
        backbone=configuration.backbone,
        pretrained=Path(configuration.pretrained).name,
        fingerprint=module.model.backbone_fingerprint,
        preprocessing=parts.preprocessing.as_dict(),
        architecture=architecture_of(module.model),
        hyper_parameters=configuration.as_dict(),
        versions=package_versions(),
    )
    module.prototypes = Prototypes(module.model.backbone.embed_dim, options.prototype_momentum)
    module.temperature = parts.logit_scale if options.temperature == "backbone" else options.temperature
    module.target = Target(module.model, parts.anchors_for, module.given.get("class_name"), configuration.class_name, domain)
    portable = portable_arguments(module.hparams, configuration.as_dict())
    module.hparams.clear()
    module.hparams.update(portable)
    module.save_hyperparameters(module.hparams)  # renews the copy that loggers are given
    if (ignored := module.region_options.ignore) is not None:
        module.region.ignore(ignored, module.image_size, module.text_scorer().grid, parts.preprocessing.interpolation)
    if isinstance(module.pre_processor, CLIPPreProcessor):
        module.pre_processor.configure(parts.image_size, parts.preprocessing)
    require_whole_images(module.pre_processor, parts.image_size, parts.preprocessing)
    module.scorer = module.text_scorer()
    module.set_domain(domain or configuration.domain or DEFAULT_DOMAIN)
