"""The memory of good images of a model: made, extended, forgotten, kept in checkpoints, and ready for an export.

A `module` is a `DPCLIP`; good images are files, PIL images, or tensors ``(3, H, W)`` in [0, 1].
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from anomalib_dpclip.model.settled_thresholds import calibration_of, settle_thresholds
from anomalib_dpclip.pre_processing.pre_processor import CLIPPreProcessor
from anomalib_dpclip.scorers.batch_scorer import BatchScorer
from anomalib_dpclip.scorers.comparison import Comparison
from anomalib_dpclip.scorers.fusion import Fusion
from anomalib_dpclip.scorers.memory_fit import MemoryFit
from anomalib_dpclip.scorers.memory_scorer import MemoryScorer, MemoryState, TokenMemory
from anomalib_dpclip.scorers.references import image_tensor
from anomalib_dpclip.scorers.region import Region
from anomalib_dpclip.scorers.text_weight import OWN_TOKENS, weight_for
from anomalib_dpclip.scorers.token_source import OwnTokens, TowerTokens
from anomalib_dpclip.visualization.likeness import Likeness

logger = logging.getLogger(__name__)

Images: TypeAlias = "Sequence[str | Path | Image.Image | Tensor] | Tensor"


def fit_references(module: Any, paths: list[str] | None = None) -> MemoryScorer:
    """Remember good images of files, or those that were given, seen with the adapters as they are now."""
    scorer = remember(module, module.references.images(paths, module.datamodule), module.model.anchors, paths)
    memory = scorer.state.memory
    logger.info("scoring by %d photos of the target: %d tokens a layer", int(memory.photos), len(memory.layers[0]))
    return scorer


def remember(module: Any, images: Iterable[Tensor], anchors: Tensor, paths: Sequence[str] | None) -> MemoryScorer:
    """A scorer by good images of what the text anchors ``(E, 2)`` are of; by name if they are of files."""
    resized = resized_images(module, images)
    scorer = memory_fit(module, anchors).fit(resized, text_weight(module, len(resized)))
    if paths is not None:
        normalize = preparation(module).normalize
        scorer.likeness = Likeness(paths, torch.cat([normalize(each.float() / 255) for each in resized.split(1)]))
    return scorer


def most_like(module: Any, images: Tensor, scorer: Any = None) -> list[str]:
    """File name of a scorer's good photo that looks most like each normalised image ``(B, 3, H, W)``; empty without any."""
    likeness = getattr(scorer or module.scorer, "likeness", None)
    return [""] * len(images) if likeness is None else likeness.most_like(images)


def memory_fit(module: Any, anchors: Tensor) -> MemoryFit:
    """Makes memories of good images as the model sees them, with the text anchors ``(E, 2)`` of what they show."""
    normalize = preparation(module).normalize
    return MemoryFit(comparison_of(module), normalize, anchors, limit=module.memory_options.tokens, seed=module.seed)


def resized_images(module: Any, images: Iterable[Tensor]) -> Tensor:
    """Images as a memory takes them ``(K, 3, H, W)``, 8-bit, of the scorer's size; each is let go before the next is read.

    One of another size than the region was drawn for is a `ValueError`.
    """
    resize, resized = preparation(module).resize_only, []
    for number, image in enumerate(images):
        module.region.require_size(image.shape[2], image.shape[1], f"photo {number} of the target")
        resized.append((resize(image) * 255).round().byte())
    return torch.stack(resized)


def comparison_of(module: Any, region: Region | None = None) -> Comparison:
    """How the model compares images, of a region or the target's: by a second network's features, or by its own tokens."""
    text = module.text_scorer(region)
    if module.feature_tower is None:
        return Comparison(text, OwnTokens(module.model.backbone.grid, len(module.model.tap_layers)))
    normalize = preparation(module).normalize
    return Comparison(text, TowerTokens(module.feature_tower, normalize.mean, normalize.std))


def text_weight(module: Any, count: int) -> float:
    """Weight of the text beside distances to a number of good images: as asked for, else as learned, else the plain sum.

    What was learned beside the backbone's own tokens tells of the text beside another network's too.
    """
    if module.memory_options.text_weight is not None:
        return float(module.memory_options.text_weight)
    learned = module.provenance.text_weights
    return weight_for(learned.get(module.configuration.memory_backbone) or learned.get(OWN_TOKENS, {}), count)


def preparation(module: Any) -> CLIPPreProcessor:
    """How photos are prepared: as scored images are, or as they would be without a pre-processor switched off."""
    own = module.pre_processor
    return own if isinstance(own, CLIPPreProcessor) else CLIPPreProcessor(module.image_size)


def memory_stays(module: Any, memory: MemoryScorer) -> bool:
    """Whether a run scores by the memory that is there, since it has no other images to make one of."""
    references = module.references
    has_training_split = getattr(module.datamodule, "train_data", None) is not None
    is_all = memory.is_stored or references.are_given or not references.are_named
    return is_all or (references.source is None and not has_training_split)


def set_references(module: Any, images: Images) -> None:
    """Score by these good images of the target, until others are set; none at all forgets those, with their thresholds.

    A file that cannot be read is an ImageReadError, an image of another shape a ValueError.
    """
    module.references.set(images)
    if len(images):
        if module.model.anchors.any():
            module.before_references = module.before_references or (module.scorer, deepcopy(calibration_of(module)))
            module.scorer = fit_references(module)
            settle_thresholds(module)
    elif module.before_references is not None:
        (module.scorer, calibration), module.before_references = module.before_references, None
        if calibration is not None:
            module.post_processor.calibration.copy_from(calibration)


def extend_memory(module: Any, images: Images) -> None:
    """Score by more good images than before, such as ones that were called anomalous wrongly; raises as `set_references`.

    Thresholds are set anew where no validation has set them. Without a memory that they could join a ValueError.
    """
    scorer = module.scorer
    if not isinstance(scorer, MemoryScorer):
        raise ValueError(
            "there is no memory of good photos that others could join: give good photos with --model.few_shot_source "
            "FOLDER, or --model.k_shot, when you calibrate"
        )
    fit = memory_fit(module, module.model.anchors)
    module.scorer = fit.extend(scorer.state, resized_images(module, map(image_tensor, images)))
    module.scorer.is_stored = scorer.is_stored
    settle_thresholds(module)


def stored_memory(module: Any, state: Mapping[str, Any]) -> MemoryScorer | None:
    """A scorer with room for the memory that a state dict holds, of whatever size; ``None`` where it holds none."""
    prefix = "scorer_state.memory."
    stored = {name.removeprefix(prefix): torch.zeros_like(value) for name, value in state.items() if name.startswith(prefix)}
    layers = [stored[f"layer{number}"] for number in range(len(stored)) if f"layer{number}" in stored]
    if not layers:
        return None
    comparison, nothing = comparison_of(module), torch.tensor([0.0, 1.0])
    compared = len(comparison.source.grids)
    if len(layers) != compared:
        raise ValueError(
            f"the checkpoint's good photos are remembered by {len(layers)} layers, and this model compares {compared}: leave "
            f"--model.memory.layers out, or give the photos anew with --model.weights in the place of --ckpt_path"
        )
    fusion = Fusion(nothing, nothing, nothing, float(state["scorer_state.fusion.text_weight"]))
    memory = TokenMemory(layers, stored["spread"])
    scores = torch.zeros_like(state["scorer_state.scores"])
    return MemoryScorer(comparison, MemoryState(memory, fusion, scores), is_stored=True)


def prediction_digest(module: Any, images: Sequence[str]) -> str:
    """Identifies everything that predictions depend on: arguments, learned values, good images, and the images of a lot.

    What a run sets itself (thresholds of a memory or of a lot) follows from these, and is left out.
    """
    processor, scorer, calibration = module.post_processor, module.scorer, calibration_of(module)
    settings: list[Any] = [module.configuration.as_dict(), getattr(processor, "checkpoint_config", dict)(), module.min_area]
    is_stored = isinstance(scorer, MemoryScorer) and memory_stays(module, scorer)
    if module.references.are_named and not is_stored:
        settings.append(module.references.digest(module.datamodule))
    if module.lot:
        settings.append(sorted(images))
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=lambda value: type(value).__name__).encode())
    left_out = ["prototypes.", "model.anchors", *([] if is_stored else ["scorer_state."])]
    if calibration is not None and (calibration.is_default or not calibration.is_set):
        left_out.append("post_processor.calibration.")
    for name, value in module.state_dict().items():
        if isinstance(value, Tensor) and not name.startswith(tuple(left_out)):
            digest.update(name.encode() + value.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    digest.update((module.target.class_name or module.target.anchor_class).encode())
    return digest.hexdigest()[:12]


def prepare_export(module: Any) -> None:
    """Have the good images that the arguments ask for before an export, and say that no lot goes into a file."""
    if module.lot:
        logger.warning("an exported file sees one image at a time: it scores without the lot, as with --model.lot false")
    scorer = module.scorer
    if isinstance(scorer, BatchScorer):
        module.scorer = module.text_scorer() if scorer.state is None else MemoryScorer(scorer.comparison, scorer.state)
    if module.scorer.name == "memory" or not module.references.are_named:
        return
    if module.references.source is None and module.references.k_shot:
        raise ValueError(
            f"--model.k_shot {module.references.k_shot} takes photos of a training split, which an export does not have: "
            f"give a folder with --model.few_shot_source, or a checkpoint of a run with --ckpt_path"
        )
    module.scorer = fit_references(module, module.references.paths(None))
    settle_thresholds(module)
