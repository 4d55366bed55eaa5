"""What raw maps and detection scores mean on a data set: score fusion, strictly monotone normalisation, thresholds."""

import logging
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics.aggregation import CatMetric

from anomalib_dpclip.method.domain import Domain
from anomalib_dpclip.metrics.functional import f1_threshold
from anomalib_dpclip.metrics.pixel_histogram import PixelHistogram

logger = logging.getLogger(__name__)

NORMALISED_CONTROL_POINTS = (0.0, 0.05, 0.5, 0.95, 1.0)
"""Where the lowest possible, lowest seen, threshold, highest seen and highest possible value go."""

DETECTION_WEIGHT: dict[Domain, float] = {"industrial": 0.5, "medical": 0.0}
"""Share of the detection score in the image score; the rest is the map's peak (DP-CLIP, inference)."""

MIN_GAP = 1e-6
"""Least distance between control points, and least spread of a data set's scores, on the scale of [0, 1]."""


class Thresholds(NamedTuple):
    """Values that separate normal from anomalous (labels are ``value > threshold``)."""

    image: float
    pixel: float


def piecewise_linear(values: Tensor, points: Tensor) -> Tensor:
    """Strictly increasing map through ``points`` (5,) -> `NORMALISED_CONTROL_POINTS`.

    Unlike a clamped linear scaling it leaves no two different values equal, so ranking metrics stay what they were.
    """
    result = torch.zeros_like(values)
    for index in range(len(NORMALISED_CONTROL_POINTS) - 1):
        low, high = points[index], points[index + 1]
        rise = NORMALISED_CONTROL_POINTS[index + 1] - NORMALISED_CONTROL_POINTS[index]
        # Shares are clamped to their segment: a sum of monotone terms stays monotone when rounded.
        result = result + rise * ((values - low) / (high - low)).clamp(0, 1)
    return result


def separate_control_points(lowest: float, low: float, threshold: float, high: float, highest: float) -> Tensor:
    """Control points (5,) in ascending order and apart by at least `MIN_GAP` of the whole range; the threshold moves last."""
    gap = MIN_GAP * (highest - lowest)
    threshold = min(max(threshold, lowest + 2 * gap), highest - 2 * gap)
    low = min(max(low, lowest + gap), threshold - gap)
    high = max(min(high, highest - gap), threshold + gap)
    return torch.tensor([lowest, low, threshold, high, highest])


def best_f1_threshold(scores: Tensor, labels: Tensor) -> float:
    """Threshold of the best F1 score, halfway below the lowest score that counts as anomalous.

    Args:
        scores: Image scores ``(N,)``.
        labels: 0 or 1 ``(N,)``, with at least one 1.
    """
    order = scores.argsort(descending=True)
    ranked, hits = scores[order], labels[order].cumsum(0)
    predicted = torch.arange(1, len(ranked) + 1)
    f1 = 2 * hits / (predicted + hits[-1])
    # Equal scores cannot be told apart: only the last of a run is a threshold.
    f1[:-1][ranked[:-1] == ranked[1:]] = -1
    best = int(f1.argmax())
    return _halfway_below(ranked, best)


def false_alarm_threshold(normal_scores: Tensor, rate: float) -> float:
    """Threshold that at most a share ``rate`` of the normal scores ``(N,)`` exceeds; from normal images alone."""
    ranked = normal_scores.sort(descending=True).values
    # As many scores may lie above the threshold: it lies halfway to the next higher one, however many are equal.
    value = ranked[int(rate * len(ranked))].item()
    higher = ranked[ranked > value]
    return (value + higher[-1].item()) / 2 if len(higher) else value + MIN_GAP


def _halfway_below(ranked: Tensor, index: int) -> float:
    """Middle between the score at an index of a descending list and the next lower one."""
    value = ranked[index].item()
    lower = ranked[ranked < value]
    return (value + lower[0].item()) / 2 if len(lower) else value - MIN_GAP


class Calibration(nn.Module):
    """Ranges and thresholds of one data set, as buffers. Unset, it changes nothing and has 0.5 as threshold.

    Attributes:
        map_range: Lowest and highest value of the raw maps ``(2,)``.
        detection_range: Lowest and highest detection score ``(2,)``.
        map_knots: Control points of the maps' normalisation ``(5,)``, see `piecewise_linear`; the third is the pixel threshold.
        score_knots: Control points of the fused image scores' normalisation ``(5,)``; the third is the image threshold.
        is_set: Whether a data set has set it.
    """

    map_range: Tensor
    detection_range: Tensor
    map_knots: Tensor
    score_knots: Tensor
    is_set: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("map_range", torch.tensor([0.0, 1.0]))
        self.register_buffer("detection_range", torch.tensor([0.0, 1.0]))
        self.register_buffer("map_knots", torch.tensor(NORMALISED_CONTROL_POINTS))
        self.register_buffer("score_knots", torch.tensor(NORMALISED_CONTROL_POINTS))
        self.register_buffer("is_set", torch.tensor(False))

    def fuse(self, peak: Tensor, detection: Tensor, domain: Domain) -> Tensor:
        """Image score: peak of the map and detection score, each min-max scaled by the data set's range, averaged.

        Args:
            peak: Highest value of each raw map ``(B,)``.
            detection: Detection scores ``(B,)``.
            domain: ``"medical"`` uses the peak alone.

        Returns:
            Scores ``(B,)``, in [0, 1] on the images that set the range and wider on others.
        """
        weight = DETECTION_WEIGHT[domain]
        return (1 - weight) * _min_max(peak, self.map_range) + weight * _min_max(detection, self.detection_range)

    def normalize_map(self, anomaly_map: Tensor) -> Tensor:
        """Raw maps ``(B, H, W)`` in [0, 1] to maps in [0, 1] with the threshold at 0.5."""
        return piecewise_linear(anomaly_map, self.map_knots)

    def normalize_score(self, fused: Tensor) -> Tensor:
        """Fused scores ``(B,)`` to scores in [0, 1] with the threshold at 0.5."""
        return piecewise_linear(fused, self.score_knots)

    @property
    def thresholds(self) -> Thresholds:
        """Thresholds on the fused score and on the raw map."""
        return Thresholds(self.score_knots[2].item(), self.map_knots[2].item())

    def copy_from(self, other: "Calibration") -> None:
        """Take over another calibration's state."""
        self.load_state_dict(other.state_dict())

    @torch.no_grad()
    def set_from(self, statistics: "CalibrationStatistics", domain: Domain, false_alarm_rate: float | None = None) -> None:
        """Set ranges and thresholds from what was seen of a data set.

        Thresholds are those of the best F1 score, or with a false-alarm rate those that this share of the normal images
        exceeds. Where that is undefined (one kind of image only) the way out is the other rule, said in a warning.

        Args:
            statistics: What was seen.
            domain: How scores are fused.
            false_alarm_rate: Share of normal images that may be called anomalous, in [0, 1).
        """
        seen = statistics.images()
        if not len(seen.peak):
            return
        self.map_range.copy_(torch.stack([seen.floor.min(), seen.peak.max()]))
        self.detection_range.copy_(torch.stack([seen.detection.min(), seen.detection.max()]))
        device = self.map_range.device
        fused = self.fuse(seen.peak.to(device), seen.detection.to(device), domain).cpu()
        thresholds = _thresholds(fused, seen, statistics, false_alarm_rate)
        low, high = (self.fuse(bound, bound, domain).item() for bound in torch.tensor([0.0, 1.0], device=device))
        self.score_knots.copy_(separate_control_points(low, fused.min().item(), thresholds.image, fused.max().item(), high))
        self.map_knots.copy_(separate_control_points(0.0, *_between(self.map_range, thresholds.pixel), 1.0))
        self.is_set.fill_(True)


class SeenImages(NamedTuple):
    """One value an image, ``(N,)``: lowest and highest map value, detection score, label (-1 where unknown)."""

    floor: Tensor
    peak: Tensor
    detection: Tensor
    label: Tensor


class CalibrationStatistics(nn.Module):
    """Four numbers an image, and the pixels' histograms: all that a calibration needs, however large the data set."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = CatMetric(nan_strategy="disable")
        self.pixels = PixelHistogram()

    @torch.no_grad()
    def update(self, anomaly_map: Tensor, detection: Tensor, label: Tensor | None, mask: Tensor | None) -> None:
        """Add a batch.

        Args:
            anomaly_map: Raw maps ``(B, H, W)`` in [0, 1].
            detection: Detection scores ``(B,)``.
            label: 0 or 1 ``(B,)``, if known.
            mask: Ground truth ``(B, H, W)`` of the same size, if known.
        """
        floor, peak = anomaly_map.flatten(1).aminmax(dim=1)
        label = torch.full_like(detection, -1) if label is None else label.to(detection.dtype)
        self.rows.update(torch.stack([floor, peak, detection, label], dim=1))
        if mask is not None:
            self.pixels.update(anomaly_map, mask)

    def images(self) -> SeenImages:
        """What was seen of each image, of all processes, on the CPU."""
        rows = self.rows.compute()
        if not isinstance(rows, Tensor):
            rows = torch.cat(rows) if rows else torch.empty(0, 4)
        return SeenImages(*rows.reshape(-1, 4).cpu().unbind(1))


def _thresholds(
    fused: Tensor,
    seen: SeenImages,
    statistics: CalibrationStatistics,
    false_alarm_rate: float | None,
) -> Thresholds:
    """Thresholds on fused scores and raw maps, by F1 score or by false-alarm rate."""
    normal, anomalous = seen.label == 0, seen.label == 1
    rate = false_alarm_rate
    if rate is not None and not normal.any():
        logger.warning("false_alarm_rate=%s needs normal validation images and there are none: using the F1 score", rate)
        rate = None
    if rate is None and not anomalous.any():
        if not normal.any():
            return Thresholds(fused.max().item() + MIN_GAP, seen.peak.max().item() + MIN_GAP)
        logger.warning(
            "no anomalous validation image: the thresholds are set so that no normal validation image exceeds them; "
            "choose another rate with the post-processor's false_alarm_rate"
        )
        rate = 0.0
    if rate is not None:
        # A map's peak decides whether its image shows any anomalous pixel: same rate, same images.
        return Thresholds(false_alarm_threshold(fused[normal], rate), false_alarm_threshold(seen.peak[normal], rate))
    known = normal | anomalous
    image = best_f1_threshold(fused[known], anomalous[known].long())
    pixel = f1_threshold(statistics.pixels.compute()) if statistics.pixels.update_called else math.nan
    if math.isnan(pixel):  # No masks. The map's peak is an image score too.
        pixel = best_f1_threshold(seen.peak[known], anomalous[known].long())
    return Thresholds(image, pixel)


def _min_max(values: Tensor, bounds: Tensor) -> Tensor:
    return (values - bounds[0]) / (bounds[1] - bounds[0]).clamp_min(MIN_GAP)


def _between(bounds: Tensor, threshold: float) -> tuple[float, float, float]:
    low, high = bounds.tolist()
    return low, threshold, high
