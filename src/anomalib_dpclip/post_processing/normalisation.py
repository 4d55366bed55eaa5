"""Monotone normalisation: raw values to [0, 1] with the threshold at 0.5, without the ties that clamping makes."""

import torch
from torch import Tensor

NORMALISED_CONTROL_POINTS = (0.0, 0.05, 0.5, 0.95, 1.0)
"""Where the lowest possible, lowest seen, threshold, highest seen and highest possible value go."""

MIN_GAP = 1e-6
"""Least distance between control points, on the scale of [0, 1]."""


def piecewise_linear(values: Tensor, points: Tensor) -> Tensor:
    """Increasing map through ``points`` (5,) -> `NORMALISED_CONTROL_POINTS`.

    Unlike a clamped linear scaling it makes no ties beyond the range of the data set, so ranking metrics stay what they were,
    up to single precision: beyond that range values closer than about 1e-6 may become equal.
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
    middle = min(max(threshold, lowest + 2 * gap), highest - 2 * gap)
    below = min(max(low, lowest + gap), middle - gap)
    above = max(min(high, highest - gap), middle + gap)
    return torch.tensor([lowest, below, middle, above, highest])
