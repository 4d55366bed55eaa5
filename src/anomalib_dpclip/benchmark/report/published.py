"""Figures that the DP-CLIP paper reports, in percent, to set beside measured ones."""

import math
from typing import NamedTuple


class Published(NamedTuple):
    """AUROC and average precision in percent; NaN where the paper has none (polyp sets have no normal images)."""

    pixel_AUROC: float  # noqa: N815 the names are those of the results' columns
    pixel_AP: float  # noqa: N815
    image_AUROC: float = math.nan  # noqa: N815
    image_AP: float = math.nan  # noqa: N815


DPCLIP = "DP-CLIP"

BY_DATA_SET = {
    "MVTec-AD": Published(90.5, 45.2, 90.1, 95.6),
    "BTAD": Published(96.7, 53.2, 95.9, 97.3),
    "MPDD": Published(96.0, 29.8, 75.6, 80.4),
    "VisA": Published(94.9, 25.2, 80.9, 83.6),
    "CVC-300": Published(97.5, 69.1),
    "ColonDB": Published(85.7, 37.0),
    "ClinicDB": Published(92.0, 63.2),
    "Kvasir": Published(89.8, 63.0),
    "BrainMRI": Published(96.9, 56.4, 81.5, 95.1),
    "Liver CT": Published(97.4, 16.3, 76.9, 73.6),
    "Retina OCT": Published(96.2, 63.4, 85.3, 82.3),
}
"""DP-CLIP on each data set: learned on VisA, and on MVTec AD for VisA."""

AVERAGES = {
    "WinCLIP": Published(75.5, 14.5, 68.0, 71.8),
    "CLIP-AD": Published(91.2, 33.0, 74.5, 77.4),
    "AnomalyCLIP": Published(91.2, 37.0, 77.3, 80.7),
    "AdaCLIP": Published(91.2, 37.2, 80.4, 83.0),
    "AA-CLIP": Published(93.6, 44.7, 82.0, 84.5),
    DPCLIP: Published(94.0, 47.5, 83.8, 86.8),
}
"""Averages of the same table over all data sets (image metrics: over those that have them)."""
