"""The tower of a CLIP, whichever kind it is."""

from typing import Any

from anomalib_dpclip.clip.towers.open_clip_tower import OpenCLIPTower
from anomalib_dpclip.clip.towers.timm_tower import TimmTower
from anomalib_dpclip.clip.towers.tower import VisionTower


def tower_of(visual: Any) -> VisionTower:
    """Wrap a vision tower for the method.

    Args:
        visual: ``clip.visual`` of an open_clip CLIP.

    Raises:
        ValueError: If it is no vision transformer that the method can adapt; names what it is.
    """
    return TimmTower(visual) if hasattr(visual, "trunk") else OpenCLIPTower(visual)
