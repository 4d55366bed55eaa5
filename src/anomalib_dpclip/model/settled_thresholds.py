"""Which thresholds hold for the way that a `DPCLIP`, the `module`, scores: of a validation, good images, a lot, or adapters."""

import logging
from typing import Any

from anomalib_dpclip.post_processing.calibration import Calibration
from anomalib_dpclip.post_processing.calibration_statistics import ImageStatistics
from anomalib_dpclip.post_processing.conformal import NO_GUARANTEE
from anomalib_dpclip.post_processing.scale import DETECTION_WEIGHT
from anomalib_dpclip.post_processing.score_text import Standing
from anomalib_dpclip.post_processing.thresholds import Thresholds, thresholds_by_rate
from anomalib_dpclip.post_processing.unlabelled import unlabelled_thresholds
from anomalib_dpclip.scorers.batch_scorer import BatchScorer
from anomalib_dpclip.scorers.memory_scorer import MemoryScorer

logger = logging.getLogger(__name__)

SINGLE_SHARE = 0.75
"""Share of the way from a single good image to the same with synthetic defects, where its threshold lies."""


def calibration_of(module: Any) -> Calibration | None:
    """Thresholds in force; ``None`` with another post-processor than DP-CLIP's."""
    return getattr(module.post_processor, "calibration", None)


def weigh_unset(module: Any) -> None:
    """Have scores fused as the domain asks for where nothing is calibrated yet."""
    for name in ("calibration", "auxiliary_calibration"):
        calibration = getattr(module.post_processor, name, None)
        if calibration is not None and not calibration.is_set:
            calibration.detection_weight.fill_(DETECTION_WEIGHT[module.model.domain])


def settle_thresholds(module: Any) -> None:
    """Make sure that the thresholds in force belong to the way that images are scored; else set those that it knows itself."""
    calibration, scorer = calibration_of(module), module.scorer
    if calibration is None:
        return
    if calibration.is_set and not calibration.is_default:
        if calibration.scorer == scorer.name:
            return
        logger.warning(
            "the thresholds in force (%s) are of scores by the %s, and images are scored by the %s now: others are set",
            *(calibration.threshold_basis, calibration.scorer, scorer.name),
        )
    if isinstance(scorer, BatchScorer):  # above what its quietest images score
        seen = scorer.image_statistics()
        calibration.set_ranges(seen, scorer.detection_weight)
        calibration.set_thresholds(unlabelled_thresholds(calibration.fused(seen), seen.map_max), seen)
        calibration.belongs_to(scorer.name, is_default=True)
    elif isinstance(scorer, MemoryScorer):
        calibrate_on_references(calibration, scorer, module.post_processor.false_alarm_rate)
    elif calibration.scorer != scorer.name:
        calibration.copy_from(module.post_processor.auxiliary_calibration)
    if not calibration.is_set:
        logger.warning(
            "nothing has been calibrated, neither the adapters nor on this target: the threshold is 0.5, the point of "
            "indifference. Run `anomalib validate` on images of the target for a better one"
        )


def calibrate_on_references(calibration: Calibration, scorer: MemoryScorer, rate: float | None) -> None:
    """Set ranges and thresholds from good images scored by one another, for a false-alarm rate if one is asked for.

    The default threshold is the highest of their scores. A single image has nothing to be scored by but its own mirror images,
    which are too much like it: then it lies `SINGLE_SHARE` of the way to the mean score of the image with synthetic defects.
    """
    seen = ImageStatistics(*scorer.state.scores.cpu().unbind(1))
    calibration.set_ranges(seen, scorer.detection_weight)
    fused, normal = calibration.fused(seen), seen.label == 0
    count = int(normal.sum())
    if rate is not None:
        thresholds = thresholds_by_rate(fused, seen, rate, " of the good photos, each scored by the others")
    elif count > 1:
        image, pixel = (each[normal].max().item() for each in (fused, seen.map_max))
        thresholds = Thresholds(image, pixel, f"the highest of {count} good photos, each scored by the others; {NO_GUARANTEE}")
    else:
        ends = ((each[normal].mean().item(), each[~normal].mean().item()) for each in (fused, seen.map_max))
        image, pixel = (low + SINGLE_SHARE * (high - low) for low, high in ends)
        basis = f"{SINGLE_SHARE:.0%} of the way from one good photo to the same with synthetic defects"
        thresholds = Thresholds(image, pixel, f"{basis}; {NO_GUARANTEE}")
    calibration.set_thresholds(thresholds, seen)
    calibration.false_alarm_rate = rate
    calibration.belongs_to(scorer.name, is_default=True)


def restore_adapters_calibration(module: Any, source: str) -> None:
    """Put the calibration that adapters from a source carry in force, unless it is of another domain than the user's choice."""
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


def is_uncalibrated(module: Any) -> bool:
    """Whether the thresholds in force are of something else than what the images show, or there are none.

    Good photos and a lot show it themselves. A validation was of a class; adapters carry thresholds of the auxiliary set.
    """
    calibration = calibration_of(module)
    if calibration is None or not calibration.is_set:
        return calibration is not None
    if calibration.is_default:
        return calibration.scorer == "text"
    shown = module.target.class_name
    return bool(shown and calibration.class_name and shown != calibration.class_name)


def standing(module: Any, score: float) -> Standing | None:
    """Where a normalised image score stands among those of good images of the same; ``None`` where none are known."""
    calibration = calibration_of(module)
    return None if calibration is None or is_uncalibrated(module) else calibration.standing(score)


def remarks(module: Any) -> list[str]:
    """What decisions rest on, as lines to print below predictions."""
    calibration = calibration_of(module)
    if calibration is None:
        return []
    basis = calibration.threshold_basis or "nobody knows what they are of"
    if not is_uncalibrated(module):
        return [f"Thresholds: {basis}."]
    found = f"the thresholds at hand are of something else: {basis}" if calibration.is_set else "there are no thresholds"
    good = "give good photos of the same (`dpclip predict --good FOLDER`)"
    advice = f"for decisions {good}, or calibrate with `anomalib validate` on images of the target"
    return [f"Uncalibrated: {found}. Scores rank the photos; {advice}."]
