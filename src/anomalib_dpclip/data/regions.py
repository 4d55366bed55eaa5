"""Connected regions of a mask as boxes, in pixels of the photo, with their scores and areas."""

import logging
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from anomalib.data import ImageBatch
from scipy import ndimage

from anomalib_dpclip.data.images import ImageReadError, photo_size

logger = logging.getLogger(__name__)

_TOUCHING = np.ones((3, 3))
"""Pixels that touch at a corner belong together, as in AUPRO."""


class Region(NamedTuple):
    """A connected region: its box, from the first column and row to those after the last, its highest score, its pixels."""

    left: int
    top: int
    right: int
    bottom: int
    score: float
    area: int

    def scaled(self, x: float, y: float) -> "Region":
        """The same region of a picture that is so many times as wide and high; it keeps a pixel at least."""
        left, top = int(self.left * x), int(self.top * y)
        right, bottom = max(left + 1, round(self.right * x)), max(top + 1, round(self.bottom * y))
        return Region(left, top, right, bottom, self.score, round(self.area * x * y))

    def as_json(self) -> dict[str, Any]:
        """The same for a file of JSON."""
        return {"box": [*self[:4]], "score": round(self.score, 4), "area": self.area}


def find_regions(
    heat: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_], size: tuple[int, int], min_area: int = 0
) -> tuple[list[Region], npt.NDArray[np.bool_]]:
    """Find the connected regions of a mask ``(H, W)``, the highest score first, and the mask without specks.

    Args:
        heat: Anomaly map ``(H, W)``.
        mask: What is called anomalous ``(H, W)``.
        size: Width and height of the photo, whose pixels boxes and areas are counted in.
        min_area: Pixels of the photo that a region has at least; smaller ones are specks.

    Example:
        >>> heat, mask = np.zeros((4, 8), np.float32), np.zeros((4, 8), bool)
        >>> mask[1:3, 2:4], heat[1, 3] = True, 0.75
        >>> find_regions(heat, mask, (80, 40))[0]
        [Region(left=20, top=10, right=40, bottom=30, score=0.75, area=400)]
    """
    labels, count = ndimage.label(mask, _TOUCHING)
    width, height = size
    areas = np.bincount(labels.ravel(), minlength=count + 1) * (width * height / mask.size)
    kept = areas >= min_area
    kept[0] = False
    peaks = ndimage.maximum(heat, labels, np.arange(count + 1))
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        if kept[number]:
            region = Region(columns.start, rows.start, columns.stop, rows.stop, float(peaks[number]), 0)
            in_photo = region.scaled(width / mask.shape[1], height / mask.shape[0])
            found.append(in_photo._replace(area=max(1, round(areas[number]))))
    return sorted(found, key=lambda region: -region.score), kept[labels]


def batch_regions(batch: ImageBatch, min_area: int = 0) -> list[list[Region]]:
    """Regions of each image of a batch that has paths; none without maps and masks."""
    found: list[list[Region]] = [[] for _ in batch.image_path or []]
    if batch.anomaly_map is None or batch.pred_mask is None:
        return found
    maps, masks = batch.anomaly_map.float().cpu().numpy(), batch.pred_mask.bool().cpu().numpy()
    for index, path in enumerate(batch.image_path or []):
        try:
            if masks[index].any():  # else there is no need to look how large the photo is
                found[index], _ = find_regions(maps[index], masks[index], photo_size(path), min_area)
        except ImageReadError as error:  # it has gone since it was predicted; its score is not lost
            logger.warning("no regions: %s", error)
    return found
