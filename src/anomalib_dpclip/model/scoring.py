"""Which way images are scored in a run, and which thresholds hold for it: decided once, before the first image is scored."""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from anomalib_dpclip.auxiliary.leakage import require_untested, warn_if_learned_from
from anomalib_dpclip.data.image_checks import image_paths, require_sound_images
from anomalib_dpclip.metrics.pixel_metrics import PixelMetric
from anomalib_dpclip.post_processing.calibration import Calibration
from anomalib_dpclip.post_processing.calibration_statistics import ImageStatistics
from anomalib_dpclip.post_processing.thresholds import NO_GUARANTEE, Thresholds, thresholds_by_rate
from anomalib_dpclip.pre_processing.pre_processor import CLIPPreProcessor
from anomalib_dpclip.scorers.batch_scorer import MAX_DEVIATIONS, BatchScorer, mad_threshold
from anomalib_dpclip.scorers.comparison import Comparison
from anomalib_dpclip.scorers.fusion import Fusion, Usual
from anomalib_dpclip.scorers.memory_fit import MemoryFit
from anomalib_dpclip.scorers.memory_scorer import MemoryScorer, MemoryState, TokenMemory
from anomalib_dpclip.scorers.token_source import OwnTokens, TowerTokens

logger = logging.getLogger(__name__)


class PrepareScorer(Callback):
    """Resolves class, domain and region of a run, fetches good images, sees an unlabelled batch, and sees to the thresholds."""

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before the target is calibrated on."""
        self._prepare(trainer, pl_module, trainer.val_dataloaders, calibrates=bool(sum(trainer.num_val_batches)))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before the target is tested; warn if the adapters have learned from it."""
        self._prepare(trainer, pl_module, trainer.test_dataloaders, calibrates=False)
        module: Any = pl_module
        if module.datamodule is not None:
            warn_if_learned_from(module.provenance.learned_from, module.datamodule)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before photos are predicted."""
        self._prepare(trainer, pl_module, trainer.predict_dataloaders, calibrates=False)

    def _prepare(self, trainer: Trainer, module: Any, loaders: Any, *, calibrates: bool) -> None:
        fits = trainer.state.fn == TrainerFn.FITTING
        if not fits:
            require_scorable(module)
        for loader in _as_list(loaders):
            require_sound_images(loader.dataset)
        module.target.resolve_class(module.datamodule)
        is_calibrated = not calibrates and is_set(module)
        module.set_domain(module.target.resolve_domain(module.datamodule, is_calibrated=is_calibrated))
        leave_out_of_metrics(module)
        # Lightning's precision holds in its steps alone: what images are compared with must be seen in the same.
        with trainer.precision_plugin.forward_context():
            choose_scorer(module, loaders, fits=fits)
            if not calibrates:
                settle_thresholds(module)


def require_scorable(module: Any) -> None:
    """Make sure that there is something to score by.

    Raises:
        ValueError: If the adapters are untrained.
    """
    if module.weights is None and not module.provenance.learned_from:
        raise ValueError(
            "there is nothing to judge with, the adapters are untrained: give trained ones with --model.weights FILE or "
            "--ckpt_path FILE, or say --model.weights clip for CLIP without adapters"
        )


def is_set(module: Any) -> bool:
    """Whether thresholds are in force that somebody set."""
    calibration = getattr(module.post_processor, "calibration", None)
    return calibration is not None and bool(calibration.is_set)


def leave_out_of_metrics(module: Any) -> None:
    """Leave ignored pixels out of the pixel metrics of a run."""
    evaluator = module.evaluator
    for metric in [*evaluator.val_metrics, *evaluator.test_metrics] if evaluator else []:
        if isinstance(metric, PixelMetric):
            metric.histogram.judged = module.region.scored


def choose_scorer(module: Any, loaders: Any, *, fits: bool) -> None:
    """Score by good images and the unlabelled batch where the arguments ask for them, else by the text.

    Args:
        module: `DPCLIP`.
        loaders: Loaders of the run.
        fits: Whether adapters are still learning: what they have seen before is of other ones.
    """
    known = module.scorer
    if isinstance(known, BatchScorer):  # of an earlier run
        known = None if known.state is None else MemoryScorer(known.comparison, known.state)
    memory = known if isinstance(known, MemoryScorer) and not fits else None
    memory = _follow_references(module, loaders, memory)
    if module.lot:
        scorer = BatchScorer(
            comparison_of(module),
            None if memory is None else memory.state,
            text_weight=text_weight(module),
            ready=lambda batch: _ready(module, batch),
            seed=module.seed,
        )
        scorer.prepare(loaders)
        if scorer.is_prepared:
            module.scorer = scorer
            return
    module.scorer = module.text_scorer() if memory is None else memory


def _follow_references(module: Any, loaders: Any, memory: MemoryScorer | None) -> MemoryScorer | None:
    """The memory that a run scores by: the stored one, a new one of the good images that are named, or none."""
    references = module.references
    if memory is not None and memory.is_stored:
        if references.source is not None:
            logger.warning(
                "scoring by the photos that the checkpoint keeps, not by those of --model.few_shot_source %s: to score by "
                "others, name the checkpoint with --model.weights in the place of --ckpt_path",
                references.source,
            )
        return memory
    has_training_split = getattr(module.datamodule, "train_data", None) is not None
    if not references.are_named or (memory is not None and references.source is None and not has_training_split):
        return memory
    paths = references.paths(module.datamodule)
    if paths is not None:
        require_untested(paths, [path for loader in _as_list(loaders) for path in image_paths(loader.dataset)])
    return fit_references(module, paths)


def fit_references(module: Any, paths: list[str] | None = None) -> MemoryScorer:
    """Remember good images, seen with the adapters as they are now.

    Args:
        module: `DPCLIP`.
        paths: Their files; ``None`` for those that were given.
    """
    images = resized_images(module, module.references.images(paths, module.datamodule))
    scorer = memory_fit(module, module.model.anchors).fit(images, text_weight(module))
    logger.info("scoring by %d photos of the target: %d tokens a layer", len(images), len(scorer.state.memory.layers[0]))
    return scorer


def memory_fit(module: Any, anchors: Tensor) -> MemoryFit:
    """Makes memories of good images as the model sees them.

    Args:
        module: `DPCLIP`.
        anchors: Text anchors ``(E, 2)`` of what they show.
    """
    normalize = _preparation(module).normalize
    return MemoryFit(comparison_of(module), normalize, anchors, limit=module.memory_options.tokens, seed=module.seed)


def resized_images(module: Any, images: Iterable[Tensor]) -> Tensor:
    """Images as a memory takes them ``(K, 3, H, W)``, 8-bit, of the scorer's size; each is let go before the next is read.

    Args:
        module: `DPCLIP`.
        images: ``(3, H, W)`` in [0, 1].

    Raises:
        ValueError: If an image has another size than the region was drawn for.
    """
    resize, resized = _preparation(module).resize_only, []
    for number, image in enumerate(images):
        module.region.require_size(image.shape[2], image.shape[1], f"photo {number} of the target")
        resized.append((resize(image) * 255).round().byte())
    return torch.stack(resized)


def comparison_of(module: Any) -> Comparison:
    """How the model compares images: by its second network's features, or by the backbone's own tokens."""
    text = module.text_scorer()
    if module.feature_tower is None:
        return Comparison(text, OwnTokens(module.model.backbone.grid))
    normalize = _preparation(module).normalize
    return Comparison(text, TowerTokens(module.feature_tower, normalize.mean, normalize.std))


def text_weight(module: Any) -> float:
    """Weight of the text beside distances: as asked for, else as learned, else the plain sum."""
    chosen = module.memory_options.text_weight
    return 1.0 if chosen is None else chosen


def _preparation(module: Any) -> CLIPPreProcessor:
    """How photos are prepared: as scored images are, or as they would be without a pre-processor switched off."""
    own = module.pre_processor
    return own if isinstance(own, CLIPPreProcessor) else CLIPPreProcessor(module.image_size)


def _ready(module: Any, batch: Any) -> tuple[Any, Any]:
    images = batch.image.to(module.device)
    images = images if module.pre_processor is None else module.pre_processor.transform(images)
    return images, module.target.anchors_of(batch, module.device, follow_images=False)


def _as_list(loaders: Any) -> list[Any]:
    return list(loaders) if isinstance(loaders, list | tuple) else [loaders]


# Thresholds


def settle_thresholds(module: Any) -> None:
    """Make sure that the thresholds in force belong to the way that images are scored; else set those that it knows itself."""
    calibration: Calibration | None = getattr(module.post_processor, "calibration", None)
    if calibration is None:
        return
    scorer = module.scorer
    if calibration.is_set and calibration.scorer == scorer.name and not calibration.is_default:
        return
    if calibration.is_set and not calibration.is_default:
        logger.warning(
            "the thresholds in force (%s) are of scores by the %s, and images are scored by the %s now: others are set",
            *(calibration.threshold_basis, calibration.scorer, scorer.name),
        )
    if isinstance(scorer, BatchScorer):
        calibrate_on_batch(calibration, scorer, module.model.domain)
    elif isinstance(scorer, MemoryScorer):
        calibrate_on_references(calibration, scorer, module.model.domain, module.post_processor.false_alarm_rate)
    elif calibration.scorer != scorer.name:
        calibration.copy_from(module.post_processor.auxiliary_calibration)
    if not calibration.is_set:
        logger.warning(
            "nothing has been calibrated, neither the adapters nor on this target: the threshold is 0.5, the point of "
            "indifference. Run `anomalib validate` on images of the target for a better one"
        )


def calibrate_on_batch(calibration: Calibration, scorer: BatchScorer, domain: Any) -> None:
    """Set ranges and thresholds from an unlabelled batch: some deviations above what most of its images score."""
    seen = scorer.image_statistics()
    calibration.set_ranges(seen)
    image, pixel = (mad_threshold(scores) for scores in (calibration.fused(seen, domain), seen.map_max))
    basis = f"{MAX_DEVIATIONS:g} deviations above the median of {len(seen.map_max)} images of an unlabelled lot; {NO_GUARANTEE}"
    calibration.set_thresholds(Thresholds(image, pixel, basis), seen, domain)
    calibration.belongs_to(scorer.name, is_default=True)


def calibrate_on_references(calibration: Calibration, scorer: MemoryScorer, domain: Any, rate: float | None) -> None:
    """Set ranges and thresholds from good images scored by one another, as they are and with synthetic defects.

    A threshold lies in the middle between the mean score of the one and of the other. That of the best F1 score, as on
    validation images, would lie at the weakest synthetic defect, and some of those hardly show.

    Args:
        calibration: Calibration that is set.
        scorer: Scorer by the good images.
        domain: Domain that decides how scores are fused.
        rate: False-alarm rate, if one is asked for: the scores of the good images as they are then decide.
    """
    seen = ImageStatistics(*scorer.state.scores.cpu().unbind(1))
    calibration.set_ranges(seen)
    fused = calibration.fused(seen, domain)
    if rate is not None:
        thresholds = thresholds_by_rate(fused, seen, rate, " of the good photos, each scored by the others")
    else:
        image, pixel = (
            ((each[seen.label == 0].mean() + each[seen.label == 1].mean()) / 2).item() for each in (fused, seen.map_max)
        )
        count = int((seen.label == 0).sum())
        basis = f"halfway between {count} good photos, each scored by the others, and the same with synthetic defects"
        thresholds = Thresholds(image, pixel, f"{basis}; {NO_GUARANTEE}")
    calibration.set_thresholds(thresholds, seen, domain)
    calibration.false_alarm_rate = rate
    calibration.belongs_to(scorer.name, is_default=True)


def fit_memory_now(module: Any) -> None:
    """Score by the good images that were given, from now on, with thresholds of theirs."""
    if module.before_references is None:
        module.before_references = module.scorer, deepcopy(getattr(module.post_processor, "calibration", None))
    module.scorer = fit_references(module)
    settle_thresholds(module)


def forget_references(module: Any) -> None:
    """Score as before any good images were given, with the thresholds of then."""
    if module.before_references is None:
        return
    module.scorer, calibration = module.before_references
    module.before_references = None
    if calibration is not None:
        module.post_processor.calibration.copy_from(calibration)


def restore_adapters_calibration(module: Any, source: str) -> None:
    """Put the calibration that adapters carry in force, unless it was made in another domain than the user's choice.

    Args:
        module: `DPCLIP`.
        source: Where the adapters come from.
    """
    domain = module.provenance.calibration_domain
    module.set_domain(module.target.chosen_domain or domain or module.model.domain)
    processor = module.post_processor
    if not hasattr(processor, "auxiliary_calibration"):
        return
    if domain in {"", module.model.domain}:
        processor.use_auxiliary_calibration()
    else:
        logger.warning(
            "%s has thresholds of %s images, which do not hold with domain=%s: calibrate with `anomalib validate` on images of "
            "the target",
            *(source, domain, module.target.chosen_domain),
        )


def stored_memory(module: Any, state: Mapping[str, Any]) -> MemoryScorer | None:
    """A scorer with room for the memory that a state dict holds, of whatever size; ``None`` where it holds none.

    Args:
        module: `DPCLIP`.
        state: The state dict.
    """
    layers = [value for name, value in sorted(state.items()) if name.startswith("scorer_state.memory.layer")]
    if not layers:
        return None
    nothing = Usual(torch.zeros(()), torch.ones(()))
    fusion = Fusion(nothing, nothing, nothing, float(state["scorer_state.fusion.text_weight"]))
    memory = TokenMemory([torch.zeros_like(layer) for layer in layers])
    scores = torch.zeros_like(state["scorer_state.scores"])
    return MemoryScorer(comparison_of(module), MemoryState(memory, fusion, scores), is_stored=True)


def extend_memory(module: Any, images: list[Tensor]) -> None:
    """Have more good images join the memory, and set thresholds anew where no validation has set them.

    Args:
        module: `DPCLIP`.
        images: ``(3, H, W)`` in [0, 1].

    Raises:
        ValueError: If there is no memory that they could join.
    """
    scorer = module.scorer
    if not isinstance(scorer, MemoryScorer):
        raise ValueError(
            "there is no memory of good photos that others could join: give good photos with --model.few_shot_source FOLDER, or "
            "--model.k_shot, when you calibrate"
        )
    fit = memory_fit(module, module.model.anchors)
    module.scorer = fit.extend(scorer.state, resized_images(module, images))
    module.scorer.is_stored = scorer.is_stored
    settle_thresholds(module)


def prediction_digest(module: Any, images: Sequence[str]) -> str:
    """Identifies everything that predictions depend on: arguments, learned values, good images, and the images of a lot.

    What a run sets itself (thresholds of a memory or of a lot) follows from these, and is left out.

    Args:
        module: `DPCLIP`.
        images: Files of the run.
    """
    processor = module.post_processor
    settings: list[Any] = [module.configuration.as_dict(), getattr(processor, "checkpoint_config", dict)(), module.min_area]
    scorer = module.scorer
    stored = isinstance(scorer, MemoryScorer) and scorer.is_stored
    if module.references.are_named and not stored:
        settings.append(module.references.digest(module.datamodule))
    if module.lot:
        settings.append(sorted(images))
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=lambda value: type(value).__name__).encode())
    left_out = ["prototypes."] if stored else ["prototypes.", "scorer_state."]
    calibration = getattr(processor, "calibration", None)
    if calibration is not None and calibration.is_default:
        left_out.append("post_processor.calibration.")
    for name, value in module.state_dict().items():
        if isinstance(value, Tensor) and not name.startswith((*left_out, "model.anchors")):
            digest.update(name.encode() + value.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    digest.update((module.target.class_name or module.target.anchor_class).encode())
    return digest.hexdigest()[:12]


def prepare_export(module: Any) -> None:
    """Have the good images that the arguments ask for before an export, and say that no lot goes into a file.

    Args:
        module: `DPCLIP`.

    Raises:
        ValueError: If only a data module could bring the images.
    """
    if module.lot:
        logger.warning("an exported file sees one image at a time: it scores without the lot, as with --model.lot false")
    scorer = module.scorer
    if isinstance(scorer, BatchScorer):
        module.scorer = module.text_scorer() if scorer.state is None else MemoryScorer(scorer.comparison, scorer.state)
    if module.scorer.name == "memory" or not module.references.are_named:
        return
    if module.references.source is None and module.references.k_shot:
        raise ValueError(
            f"--model.k_shot {module.references.k_shot} takes photos of a training split, which an export does not have: give a "
            f"folder with --model.few_shot_source, or a checkpoint of a run with --ckpt_path"
        )
    module.scorer = fit_references(module, module.references.paths(None))
    settle_thresholds(module)
