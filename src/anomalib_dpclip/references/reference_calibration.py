"""Thresholds from photos of what the target should look like, where there are no validation images."""

from torch import Tensor

from anomalib_dpclip.method.domain import Domain
from anomalib_dpclip.post_processing.calibration import Calibration
from anomalib_dpclip.post_processing.calibration_statistics import CalibrationStatistics
from anomalib_dpclip.post_processing.thresholds import NO_GUARANTEE, Thresholds


def calibrate_on_references(
    calibration: Calibration, statistics: CalibrationStatistics, domain: Domain, false_alarm_rate: float | None
) -> None:
    """Set ranges and thresholds from photos judged by one another, as they are and with synthetic defects.

    A threshold lies in the middle between the mean score of the one and of the other. That of the best F1 score, as on
    validation images, would lie at the weakest synthetic defect, and some of those hardly show.

    Args:
        calibration: What is set.
        statistics: As `build_memory` gives them.
        domain: How scores are fused.
        false_alarm_rate: Probability with which a new normal image may be called anomalous, which then decides instead.
    """
    if false_alarm_rate is not None:
        calibration.set_from(statistics, domain, false_alarm_rate)
        return
    seen = statistics.images()
    calibration.set_ranges(seen)
    image, pixel = (_middle(scores, seen.label) for scores in (calibration.fused(seen, domain), seen.map_max))
    count = int((seen.label == 0).sum())
    threshold_basis = f"halfway between {count} images{statistics.of}, and the same with synthetic defects; {NO_GUARANTEE}"
    calibration.set_thresholds(Thresholds(image, pixel, threshold_basis), seen, domain)


def _middle(scores: Tensor, label: Tensor) -> float:
    return ((scores[label == 0].mean() + scores[label == 1].mean()) / 2).item()
