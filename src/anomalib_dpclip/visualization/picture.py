"""The picture of one prediction: photo and heat map side by side, with score, decision, boxes, name and colour bar."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from anomalib.data import ImageItem
from PIL import Image, ImageDraw

from anomalib_dpclip.data.images import photo_size, read_image
from anomalib_dpclip.data.regions import Region, find_regions
from anomalib_dpclip.post_processing.score_text import score_text
from anomalib_dpclip.visualization.heat_map import boxed, color_range, heat_map, outlined, shown_map
from anomalib_dpclip.visualization.layout import GAP, font, framed, printable, side_by_side, stacked, text_block

SIDE = 480
"""Longer side of photo and heat map in pixels."""

_THIN = 4
"""Ratio of its sides from which a photo, such as a line scan, is shown twice as long, or nothing of it would be seen."""

_TEXT, _TITLE = 14, 22
_MIN_WIDTH = 360
_BAR, _LABEL_WIDTH = (200, 12), 100
_COLORS = {"anomalous": (176, 0, 32), "normal": (0, 96, 48), "": (0, 0, 0)}


class Shown(NamedTuple):
    """A prediction at the size that it is shown at: maps ``(H, W)``, and boxes in pixels of it, the highest score first.

    The shades are the anomaly map, from 0 for the lower end of the colours' range to 1; the region is what is called anomalous.
    """

    photo: Image.Image
    shades: npt.NDArray[np.float32]
    color_range: tuple[float, float]
    name: str
    region: npt.NDArray[np.bool_] | None
    truth: npt.NDArray[np.bool_] | None
    boxes: Sequence[Region]


def show(item: ImageItem, side: int, is_calibrated: bool, bit_depth: int | None = None, min_area: int = 0) -> Shown:
    """Bring photo, map and masks of a prediction to the size that they are shown at.

    Args:
        item: Item with path and map.
        side: Longer side in pixels.
        is_calibrated: Whether its map fills [0, 1].
        bit_depth: Bits that a 16-bit photo uses, where its file does not say.
        min_area: Pixels of the photo that a region has at least.
    """
    path = Path(item.image_path)
    photo = read_image(path, side=side, bit_depth=bit_depth)
    scale = side / max(photo.size)
    width, height = (max(1, round(length * scale)) for length in photo.size)
    # Where a photo is enlarged there is no detail for the better filter to keep.
    photo = photo.resize((width, height), Image.Resampling.BILINEAR if scale > 1 else Image.Resampling.BICUBIC)
    heat = shown_map(item.anomaly_map, (height, width))
    low, high = color_range(heat, is_calibrated)
    truth = None if item.gt_mask is None else shown_map(item.gt_mask, (height, width), "nearest") > 0
    region, boxes = None, []
    if item.pred_mask is not None:
        size = photo_size(path)  # it may have been read smaller than it is
        mask = item.pred_mask.bool().cpu().numpy()
        regions, kept = find_regions(item.anomaly_map.float().cpu().numpy(), mask, size, min_area)
        boxes = [each.scaled(width / size[0], height / size[1]) for each in regions]
        region = shown_map(torch.from_numpy(kept), (height, width), "nearest") > 0
    shades = ((heat - low) / (high - low)).clip(0, 1)
    return Shown(photo, shades, (low, high), printable(f"{path.parent.name}/{path.name}"), region, truth, boxes)


def draw_picture(
    item: ImageItem, is_calibrated: bool, bit_depth: int | None = None, min_area: int = 0, side: int = SIDE
) -> Image.Image:
    """Draw a prediction, see `show`; wide photos stand above their heat maps, others beside them."""
    width, height = photo_size(item.image_path)
    side *= 2 if max(width, height) > _THIN * min(width, height) else 1
    shown = show(item, side, is_calibrated, bit_depth, min_area)
    photo = shown.photo if shown.truth is None else outlined(shown.photo, shown.truth)
    panels = [photo, boxed(heat_map(shown.photo, shown.shades, shown.region), shown.boxes, _TEXT)]
    photos = stacked(panels) if photo.width > 2 * photo.height else side_by_side(panels)
    decision = "" if item.pred_label is None else ("anomalous" if bool(item.pred_label) else "normal")
    title = decision if item.pred_score is None else f"{decision} {score_text(float(item.pred_score))}".strip()
    low, high = shown.color_range
    bar = _bar(f"{low:.2f}", f"{(low + high) / 2:.2f}", f"{high:.2f}")
    width = max(_MIN_WIDTH, photos.width)
    head = [text_block(title, _TITLE, width, _COLORS[decision]), text_block(shown.name, _TEXT, width)]
    return framed(stacked([*head, photos, bar]))


@lru_cache(maxsize=64)
def _bar(lowest: str, middle: str, highest: str) -> Image.Image:
    """The heat map's colours, over grey, with the values that they stand for; most pictures have the same."""
    width, height = _BAR
    bar = Image.new("RGB", (width + GAP + _LABEL_WIDTH, height + _TEXT + 4), "white")
    ramp = np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1))
    bar.paste(heat_map(Image.new("RGB", _BAR, (160, 160, 160)), ramp))
    draw = ImageDraw.Draw(bar)
    for position, number, anchor in ((0, lowest, "la"), (width // 2, middle, "ma"), (width, highest, "ra")):
        draw.text((position, height + 4), number, "black", font(_TEXT), anchor=anchor)
    draw.text((width + GAP, -2), "anomaly map", "black", font(_TEXT))
    return bar
