"""Which way images are scored in a run, and which thresholds hold for it: decided once, before the first image is scored."""

import logging
from dataclasses import replace
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_dpclip.auxiliary.leakage import require_untested, warn_if_learned_from
from anomalib_dpclip.data.image_checks import image_paths, masked_images, require_images, require_sound_images
from anomalib_dpclip.metrics import PixelMetric
from anomalib_dpclip.model.good_images import comparison_of, fit_references, memory_stays, text_weight
from anomalib_dpclip.model.settled_thresholds import settle_thresholds
from anomalib_dpclip.model.training.learning import UNNAMED
from anomalib_dpclip.scorers.batch_scorer import PANEL, BatchScorer
from anomalib_dpclip.scorers.memory_scorer import MemoryScorer

logger = logging.getLogger(__name__)


class PrepareScorer(Callback):
    """Resolves class, domain and region of a run, fetches good images, sees an unlabelled batch, and sees to the thresholds."""

    def __init__(self) -> None:
        self._sound: list[Any] = []

    def setup(self, _: Trainer, pl_module: Any, stage: str) -> None:
        """Make sure that there is something to validate, test or predict."""
        self._sound = []
        require_images(pl_module.datamodule, stage)

    def on_fit_start(self, _: Trainer, pl_module: Any) -> None:
        """Before the first step, not after hours of them: all faults of the images that are validated and tested on."""
        pl_module.set_domain(pl_module.target.resolve_domain(pl_module.datamodule, is_calibrated=False))
        for split in ("val_data", "test_data"):
            self._require_sound(getattr(pl_module.datamodule, split, None))

    def on_train_start(self, _: Trainer, pl_module: Any) -> None:
        """Where the user gives batches of his own, which may not say what they show."""
        if pl_module.auxiliary_dataset is None:
            pl_module.provenance = replace(pl_module.provenance, learned_from=[UNNAMED])
            pl_module.target.resolve_class(pl_module.datamodule)

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Before the target is calibrated on."""
        self._prepare(trainer, pl_module, trainer.val_dataloaders, calibrates=bool(sum(trainer.num_val_batches)))

    def on_test_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Before the target is tested; warn if the adapters have learned from it."""
        self._prepare(trainer, pl_module, trainer.test_dataloaders, calibrates=False)
        if pl_module.datamodule is not None:
            warn_if_learned_from(pl_module.provenance.learned_from, pl_module.datamodule)

    def on_predict_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Before photos are predicted."""
        self._prepare(trainer, pl_module, trainer.predict_dataloaders, calibrates=False)

    def _require_sound(self, dataset: Any) -> None:
        """Look at a data set's images once a run: a training validates on the same ones again and again."""
        images = image_paths(dataset), masked_images(dataset)
        if images not in self._sound:
            require_sound_images(dataset)
            self._sound.append(images)

    def _prepare(self, trainer: Trainer, module: Any, loaders: Any, *, calibrates: bool) -> None:
        fits = trainer.state.fn == TrainerFn.FITTING
        if not fits and module.weights is None and not module.provenance.learned_from:
            raise ValueError(
                "there is nothing to judge with, the adapters are untrained: give trained ones with --model.weights FILE or "
                "--ckpt_path FILE, or say --model.weights clip for CLIP without adapters"
            )
        for loader in _as_list(loaders):
            self._require_sound(loader.dataset)
        module.target.resolve_class(module.datamodule)
        calibration = getattr(module.post_processor, "calibration", None)
        stay = not calibrates and calibration is not None and bool(calibration.is_set)
        module.set_domain(module.target.resolve_domain(module.datamodule, is_calibrated=stay))
        evaluator = module.evaluator
        for metric in [*evaluator.val_metrics, *evaluator.test_metrics] if evaluator else []:
            if isinstance(metric, PixelMetric):  # ignored pixels do not count
                metric.histogram.judged = module.region.scored
        # Lightning's precision holds in its steps alone: what images are compared with must be seen in the same.
        with trainer.precision_plugin.forward_context():
            choose_scorer(module, loaders, fits=fits)
            if not calibrates:
                settle_thresholds(module)


def choose_scorer(module: Any, loaders: Any, *, fits: bool) -> None:
    """Score by good images and the unlabelled batch where the arguments ask for them, else by the text.

    While adapters still learn (`fits`), what they have seen before is of other ones.
    """
    known = module.scorer
    if isinstance(known, BatchScorer):  # of an earlier run
        known = None if known.state is None else MemoryScorer(known.comparison, known.state)
    memory = known if isinstance(known, MemoryScorer) and not fits else None
    memory = _follow_references(module, loaders, memory)
    module.scorer = module.text_scorer() if memory is None else memory
    if module.lot:

        def ready(batch: Any) -> tuple[Any, Any]:
            images = batch.image.to(module.device)
            images = images if module.pre_processor is None else module.pre_processor.transform(images)
            return images, module.target.anchors_of(batch, module.device, follow_images=False)

        scorer = BatchScorer(
            comparison_of(module),
            None if memory is None else memory.state,
            text_weight=text_weight(module, PANEL),
            ready=ready,
            seed=module.seed,
        )
        scorer.prepare(loaders)
        if scorer.is_prepared:
            module.scorer = scorer


def _follow_references(module: Any, loaders: Any, memory: MemoryScorer | None) -> MemoryScorer | None:
    """The memory that a run scores by: the stored one, a new one of the good images that are named, or none."""
    references = module.references
    if memory is not None and memory_stays(module, memory):
        if memory.is_stored and references.source is not None:
            logger.warning(
                "scoring by the photos that the checkpoint keeps, not by those of --model.few_shot_source %s: to score by "
                "others, name the checkpoint with --model.weights in the place of --ckpt_path",
                references.source,
            )
        return memory
    if not references.are_named:
        return None
    paths = references.paths(module.datamodule)
    if paths is not None:
        require_untested(paths, [path for loader in _as_list(loaders) for path in image_paths(loader.dataset)])
    return fit_references(module, paths)


def _as_list(loaders: Any) -> list[Any]:
    return list(loaders) if isinstance(loaders, list | tuple) else [loaders]
