"""The networks that a configuration asks for, built and put into a model."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from anomalib_dpclip.adapter_files.adapter_file import UNADAPTED, Provenance
from anomalib_dpclip.adapter_files.save_and_load import architecture_of
from anomalib_dpclip.clip.feature_tower import load_feature_tower
from anomalib_dpclip.clip.loading import load_clip, load_text_tower
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


def become(module: Any, configuration: Configuration) -> None:
    """Have a `DPCLIP` be what a configuration is: its networks are new, and have learned nothing. Raises as `load_clip`."""
    known, options, chosen_domain = configuration, module.training_options, module.given.get("domain")
    weights = known.backbone, known.pretrained
    preprocessing = pretraining_of(*weights, known.pretrained_tag).preprocessing.replaced(known.image_mean, known.image_std)
    tower: tuple[Any, ...] = (*weights, known.image_size, known.quick_gelu, known.pretrained_tag, known.tokenizer)
    clip, text = load_clip(*tower)
    domain: Any = known.domain or DEFAULT_DOMAIN
    architecture = {name: getattr(known, name) for name in CONFIGURED["architecture"]}
    with seeded(module.seed):  # whoever calls a constructor must not find the global random state moved
        is_unadapted = module.weights == UNADAPTED
        model = UnadaptedCLIP(clip, domain=domain) if is_unadapted else DPCLIPModel(clip, domain=domain, **architecture)
    tower_options = (module.memory_options.weights, known.memory_image_size, known.memory_layers)
    feature_tower = None if known.memory_backbone is None else load_feature_tower(known.memory_backbone, *tower_options)
    height, width = (known.tiles * side for side in model.backbone.image_size)
    if feature_tower is not None:  # photos are resized once, for whichever network wants the larger ones
        height, width = max(height, feature_tower.image_size[0]), max(width, feature_tower.image_size[1])
    prompts = (known.normal_states, known.abnormal_states, known.templates)
    anchors_for = AnchorCache(text, partial(load_text_tower, *tower), *prompts)

    known = replace(known, image_size=model.backbone.image_size[0])
    module.configuration, module.image_size = known, (height, width)
    module.model, module.feature_tower = model, feature_tower
    model.checkpointing = options.checkpointing
    module.provenance = Provenance(
        backbone=known.backbone,
        pretrained=Path(known.pretrained).name,
        fingerprint=model.backbone_fingerprint,
        preprocessing=preprocessing.as_dict(),
        architecture=architecture_of(model),
        hyper_parameters=known.as_dict(),
        versions=package_versions(),
    )
    module.prototypes = Prototypes(model.backbone.embed_dim, options.prototype_momentum)
    module.temperature = clip.logit_scale.exp().item() if options.temperature == "backbone" else options.temperature
    module.target = Target(model, anchors_for, module.given.get("class_name"), known.class_name, chosen_domain)
    portable = portable_arguments(module.hparams, known.as_dict())
    module.hparams.clear()
    module.hparams.update(portable)
    module.save_hyperparameters(module.hparams)  # renews the copy that loggers are given
    if (ignored := module.region_options.ignore) is not None:
        module.region.ignore(ignored, module.image_size, module.text_scorer().grid, preprocessing.interpolation)
    if isinstance(module.pre_processor, CLIPPreProcessor):
        module.pre_processor.configure(module.image_size, preprocessing)
    require_whole_images(module.pre_processor, module.image_size, preprocessing)
    module.scorer = module.text_scorer()
    module.set_domain(chosen_domain or domain)
