"""The networks that a configuration asks for, built and put into a model, and the default post-processor."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from anomalib_dpclip.adapter_files.adapter_file import UNADAPTED, Provenance
from anomalib_dpclip.adapter_files.compatibility import architecture_of
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
from anomalib_dpclip.model.configuration import Configuration
from anomalib_dpclip.model.hyper_parameters import keep_arguments
from anomalib_dpclip.model.target import Target
from anomalib_dpclip.post_processing.post_processor import DPCLIPPostProcessor
from anomalib_dpclip.pre_processing.compatibility import require_whole_images
from anomalib_dpclip.pre_processing.pre_processor import CLIPPreProcessor


class Parts(NamedTuple):
    """What a configuration is built into.

    Attributes:
        configuration: What was built, with the image size that the backbone has by default where none was given.
        model: The paper's model, with adapters that have learned nothing.
        anchors_for: Text anchors by class name.
        feature_tower: Second network for good photos and the lot, if there is one.
        preprocessing: Statistics and interpolation of the images.
        image_size: Height and width of the images that are scored.
        logit_scale: Factor on the similarities that the backbone learned.
        provenance: Provenance of adapters that have learned nothing yet.
    """

    configuration: Configuration
    model: DPCLIPModel
    anchors_for: AnchorCache
    feature_tower: FeatureTower | None
    preprocessing: Preprocessing
    image_size: tuple[int, int]
    logit_scale: float
    provenance: Provenance


def build_parts(module: Any, configuration: Configuration) -> Parts:
    """Build the networks.

    Args:
        module: `DPCLIP`, of whose other arguments some count here.
        configuration: What they are.

    Raises:
        ValueError: If a part of the configuration does not exist or does not fit another.
        FileNotFoundError: If weights are not there.
    """
    known = configuration
    tower: tuple[Any, ...] = (
        known.backbone,
        known.pretrained,
        known.image_size,
        known.quick_gelu,
        known.pretrained_tag,
        known.tokenizer,
    )
    preprocessing = pretraining_of(known.backbone, known.pretrained, known.pretrained_tag).preprocessing
    clip, text = load_clip(*tower)
    domain: Any = known.domain or DEFAULT_DOMAIN
    is_adapted = module.weights != UNADAPTED
    with seeded(module.seed):  # whoever calls a constructor must not find the global random state moved
        model = DPCLIPModel(clip, domain=domain, **known.architecture) if is_adapted else UnadaptedCLIP(clip, domain=domain)
    options = (module.memory_options.weights, known.memory_image_size, known.memory_layers)
    feature_tower = None if known.memory_backbone is None else load_feature_tower(known.memory_backbone, *options)
    height, width = (known.tiles * side for side in model.backbone.image_size)
    if feature_tower is not None:  # photos are resized once, for whichever network wants the larger ones
        height, width = max(height, feature_tower.image_size[0]), max(width, feature_tower.image_size[1])
    preprocessing = preprocessing.replaced(known.image_mean, known.image_std)
    known = replace(known, image_size=model.backbone.image_size[0])
    return Parts(
        known,
        model,
        AnchorCache(text, partial(load_text_tower, *tower), *known.prompts),
        feature_tower,
        preprocessing,
        (height, width),
        clip.logit_scale.exp().item(),
        _untrained(known, model, preprocessing),
    )


def use_parts(module: Any, parts: Parts) -> None:
    """Have a model be what a configuration is: its networks are new, and have learned nothing.

    Args:
        module: `DPCLIP`.
        parts: What was built.
    """
    configuration, options, domain = parts.configuration, module.training_options, module.given.get("domain")
    module.configuration, module.image_size, module.provenance = configuration, parts.image_size, parts.provenance
    module.model, module.feature_tower = parts.model, parts.feature_tower
    module.model.checkpointing = options.checkpointing
    module.prototypes = Prototypes(module.model.backbone.embed_dim, options.prototype_momentum)
    module.temperature = parts.logit_scale if options.temperature == "backbone" else options.temperature
    module.target = Target(module.model, parts.anchors_for, module.given.get("class_name"), configuration.class_name, domain)
    keep_arguments(module, configuration.as_dict())
    if (ignored := module.region_options.ignore) is not None:
        module.region.ignore(ignored, module.image_size, module.text_scorer().grid, parts.preprocessing.interpolation)
    if isinstance(module.pre_processor, CLIPPreProcessor):
        module.pre_processor.configure(parts.image_size, parts.preprocessing)
    require_whole_images(module.pre_processor, parts.image_size, parts.preprocessing)
    module.scorer = module.text_scorer()
    module.set_domain(domain or configuration.domain or DEFAULT_DOMAIN)


def _untrained(configuration: Configuration, model: DPCLIPModel, preprocessing: Preprocessing) -> Provenance:
    return Provenance(
        backbone=configuration.backbone,
        pretrained=Path(configuration.pretrained).name,
        fingerprint=model.backbone_fingerprint,
        preprocessing=preprocessing.as_dict(),
        architecture=architecture_of(model),
        hyper_parameters=configuration.as_dict(),
        versions=package_versions(),
    )


def chosen_post_processor(given: nn.Module | bool, false_alarm_rate: float | None) -> nn.Module | bool:
    """The post-processor that was given, or the default one at a false-alarm rate.

    Raises:
        ValueError: If both a rate and another post-processor were given.
    """
    if given is True:
        return DPCLIPPostProcessor(false_alarm_rate=false_alarm_rate)
    if false_alarm_rate is not None:
        raise ValueError("false_alarm_rate belongs to the default post-processor: give your own one its rate itself")
    return given
