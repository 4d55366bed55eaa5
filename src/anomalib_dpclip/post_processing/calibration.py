"""What raw maps and detection scores mean on a data set: ranges for the image score, normalisation, thresholds."""

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anomalib_dpclip.data_sets.domain import DEFAULT_DOMAIN
from anomalib_dpclip.files.plain_data import printable
from anomalib_dpclip.files.private_names import keeps_precision
from anomalib_dpclip.post_processing.calibration_statistics import CalibrationStatistics, ImageStatistics
from anomalib_dpclip.post_processing.scale import (
    DETECTION_WEIGHT,
    NORMALISED_CONTROL_POINTS,
    Scale,
    piecewise_linear,
    separate_control_points,
)
from anomalib_dpclip.post_processing.score_text import Standing
from anomalib_dpclip.post_processing.thresholds import APPROXIMATE, Thresholds, choose_thresholds, fused_by_others, goes_by_rate

_DESCRIPTION: dict[str, Any] = {
    "threshold_basis": str,
    "guaranteed_rate": (float, type(None)),
    "good_scores": list,
    "false_alarm_rate": (float, int, type(None)),
    "scorer": str,
    "is_default": bool,
    "class_name": str,
}
"""What a calibration says of itself beside its buffers, and of which type it is."""


@keeps_precision  # in half precision thresholds and control points coincide
class Calibration(nn.Module):
    """Ranges and control points of one data set, as the buffers of a `Scale`. Unset, it has 0.5 as threshold.

    Attributes:
        is_set: Whether a data set has set it.
        threshold_basis: What the thresholds rest on, in words; empty if unknown.
        guaranteed_rate: Rate at which a new normal image exceeds the image threshold at most; ``None`` without a guarantee.
        good_scores: Image scores of the normal images that they were set on, before the normalisation.
        false_alarm_rate: Rate that was asked for when they were set, if any.
        scorer: Name of the way of scoring whose thresholds they are.
        is_default: Whether they came with the scores, and no validation has set them.
        class_name: Class of the images that they are of; empty for several, or if nobody knows.
    """

    map_range: Tensor
    detection_range: Tensor
    map_knots: Tensor
    score_knots: Tensor
    detection_weight: Tensor
    is_set: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.threshold_basis = ""
        self.guaranteed_rate: float | None = None
        self.good_scores: list[float] = []
        self.false_alarm_rate: float | None = None
        self.belongs_to("text", is_default=False)
        for name in ("map_range", "detection_range"):
            self.register_buffer(name, torch.tensor([0.0, 1.0]))
        for name in ("map_knots", "score_knots"):
            self.register_buffer(name, torch.tensor(NORMALISED_CONTROL_POINTS))
        self.register_buffer("detection_weight", torch.tensor([DETECTION_WEIGHT[DEFAULT_DOMAIN]]))
        self.register_buffer("is_set", torch.tensor(False))
        self.register_load_state_dict_pre_hook(_weigh_as_before)

    def require_valid(self, source: Path | str) -> None:
        """Refuse what a file, the source, brought if it is damaged: anything compared with NaN would be normal."""
        for name, value in self.named_buffers():
            if not value.isfinite().all():
                raise ValueError(f"{source}: its calibration's {name} are not finite numbers; the file is damaged")
            if name.endswith("_knots") and not (value.diff() > 0).all():
                raise ValueError(f"{source}: its calibration has {name} that do not ascend; the file is damaged")

    @property
    def scale(self) -> Scale:
        """Ranges and control points in force, as plain tensors."""
        return Scale(self.map_range, self.detection_range, self.map_knots, self.score_knots, self.detection_weight)

    @property
    def thresholds(self) -> Thresholds:
        """Thresholds on the fused score and on the raw map."""
        return Thresholds(self.score_knots[2].item(), self.map_knots[2].item(), self.threshold_basis, self.guaranteed_rate)

    def standing(self, score: float) -> Standing | None:
        """Where a normalised score stands among those of the good images; ``None`` where fewer than two are known.

        A single good image has no score: there is nothing that it could be compared with.
        """
        if len(self.good_scores) < 2:
            return None
        good = piecewise_linear(torch.tensor(self.good_scores), self.score_knots.cpu())
        return Standing(int((good < score).sum()), len(good))

    def copy_from(self, other: "Calibration") -> None:
        """Take over another calibration's state."""
        self.load_state_dict(other.state_dict())
        for name, value in other.description().items():
            setattr(self, name, value)

    def belongs_to(self, scorer: str, *, is_default: bool, class_name: str = "") -> None:
        """Note which scores the thresholds are of, see the attributes."""
        self.scorer, self.is_default, self.class_name = scorer, is_default, class_name

    def description(self) -> dict[str, Any]:
        """What the thresholds are of, as plain data beside the buffers."""
        return {name: getattr(self, name) for name in _DESCRIPTION}

    def restore_description(self, values: Mapping[str, Any], source: Path | str) -> None:
        """Take over what `description` gave to a file, the source; what is missing is unknown, another type refused."""
        for name, kinds in _DESCRIPTION.items():
            value = values.get(name, getattr(self, name))
            if not isinstance(value, kinds) or (isinstance(value, list) and not all(map(_is_score, value))):
                raise ValueError(f"{source}: its provenance has a wrong {name!r}; is the file damaged?")
            setattr(self, name, printable(value) if isinstance(value, str) else value)

    @torch.no_grad()
    def set_from(
        self,
        statistics: CalibrationStatistics,
        detection_weight: float,
        false_alarm_rate: float | None = None,
        carried: "Calibration | None" = None,
    ) -> None:
        """Set ranges and thresholds from the statistics of a data set; none, if it has no images.

        Thresholds are those of the best F1 score, or with a false-alarm rate those that a new normal image exceeds at most at
        this rate. Where that is undefined (one kind of image only) the way out is the other rule, said in a warning.

        Args:
            statistics: Statistics of the data set.
            detection_weight: See `Scorer`, of the one whose scores these are.
            false_alarm_rate: Probability in [0, 1) with which a new normal image may be called anomalous.
            carried: Calibration that the adapters carry, whose ranges, if it is set, are used with a false-alarm rate. In
                those of the images themselves none of these images is ever extreme, as a new one can be, and the rate would
                not hold.
        """
        seen = statistics.images()
        if not len(seen.map_max):
            return
        by_rate = goes_by_rate(seen, false_alarm_rate)
        ranges = carried if by_rate and carried is not None and carried.is_set else None
        self.set_ranges(seen, detection_weight)
        if ranges is not None:
            self.map_range.copy_(ranges.map_range)
            self.detection_range.copy_(ranges.detection_range)
        # Where one value alone is the score, no range changes the order of images.
        by_others = by_rate and ranges is None and 0 < detection_weight < 1
        fused = fused_by_others(seen, detection_weight) if by_others else self.fused(seen)
        thresholds = choose_thresholds(fused, seen, statistics, false_alarm_rate)
        if by_others:
            thresholds = thresholds._replace(threshold_basis=thresholds.threshold_basis + APPROXIMATE)
        self.set_thresholds(thresholds, seen, fused)
        self.false_alarm_rate = false_alarm_rate

    def set_ranges(self, seen: ImageStatistics, detection_weight: float) -> None:
        """Set the ranges from the statistics of at least one image; thresholds follow with `set_thresholds`."""
        self.detection_weight.fill_(detection_weight)
        self.map_range.copy_(torch.stack([seen.map_min.min(), seen.map_max.max()]))
        self.detection_range.copy_(torch.stack([seen.detection.min(), seen.detection.max()]))

    def fused(self, seen: ImageStatistics) -> Tensor:
        """Image score of each of these images ``(N,)``, on the CPU."""
        device = self.map_range.device
        return self.scale.fuse(seen.map_max.to(device), seen.detection.to(device)).cpu()

    @torch.no_grad()
    def set_thresholds(self, thresholds: Thresholds, seen: ImageStatistics, chosen_on: Tensor | None = None) -> None:
        """Put thresholds in force: they become the middle control points, between the lowest and highest values of images.

        The image threshold was chosen on given scores ``(N,)``, by default on those in the ranges that are set.
        """
        fused = self.fused(seen)
        bounds = torch.tensor([0.0, 1.0], device=self.map_range.device)
        low, high = self.scale.fuse(bounds, bounds).tolist()
        self.score_knots.copy_(separate_control_points(low, fused.min().item(), thresholds.image, fused.max().item(), high))
        lowest, highest = seen.map_min.min().item(), seen.map_max.max().item()
        self.map_knots.copy_(separate_control_points(0.0, lowest, thresholds.pixel, highest, 1.0))
        self.is_set.fill_(True)
        self.threshold_basis, self.guaranteed_rate = thresholds.threshold_basis, thresholds.guaranteed_rate
        self.good_scores = (fused if chosen_on is None else chosen_on)[seen.label == 0].tolist()
        self.false_alarm_rate = None


def _weigh_as_before(calibration: Calibration, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """The first files do not name the weight: they are of industrial images."""
    weight = torch.full_like(calibration.detection_weight, DETECTION_WEIGHT[DEFAULT_DOMAIN])
    state.setdefault(f"{prefix}detection_weight", weight)


def _is_score(value: Any) -> bool:
    return isinstance(value, float) and isfinite(value)
