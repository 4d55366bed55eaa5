"""Thresholds from photos of what the target should look like, where there are no validation images."""

import torch

from anomalib_dpclip.method.domain import Domain
from anomalib_dpclip.model.calibration import Calibration
from anomalib_dpclip.model.calibration_statistics import CalibrationStatistics
from anomalib_dpclip.model.normalisation import separate_control_points


@torch.no_grad()
def calibrate_on_references(
    calibration: Calibration, statistics: CalibrationStatistics, domain: Domain, false_alarm_rate: float | None
) -> None:
    """Set ranges and thresholds from photos judged by one another, as they are and with synthetic defects.

    The threshold lies in the middle between the mean peak of the one and of the other. That of the best F1 score, as on
    validation images, would lie at the weakest synthetic defect, and some of those hardly show.

    Args:
        calibration: What is set.
        statistics: As `build_memory` gives them.
        domain: How scores are fused.
        false_alarm_rate: Share of the photos that may be called anomalous, which then decides instead.
    """
    calibration.set_from(statistics, domain, false_alarm_rate)
    if false_alarm_rate is not None:
        return
    seen = statistics.images()
    middle = (seen.peak[seen.label == 0].mean() + seen.peak[seen.label == 1].mean()) / 2
    middle = middle.to(calibration.map_range.device)
    for control_points, threshold in (
        (calibration.map_knots, middle),  # the same: an image is anomalous where any of its pixels is
        (calibration.score_knots, calibration.fuse(middle, middle, domain)),
    ):
        lowest, low, _, high, highest = control_points.tolist()
        control_points.copy_(separate_control_points(lowest, low, threshold.item(), high, highest))
