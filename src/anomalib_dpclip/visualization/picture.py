"""The picture of one prediction: photo and heat map side by side, with score, decision, boxes, name and colour bar."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from anomalib_dpclip.data.regions import Region
from anomalib_dpclip.post_processing.score_text import score_text
from anomalib_dpclip.visualization.captions import font
from anomalib_dpclip.visualization.heat_map import boxed, heat_map, outlined
from anomalib_dpclip.visualization.layout import GAP, framed, side_by_side, stacked, text_block

SIDE = 480
"""Longer side of photo and heat map in pixels."""

_THIN = 4
_TEXT, _TITLE = 14, 22
_MIN_WIDTH = 360
_BAR, _LABEL_WIDTH = (200, 12), 100
_COLORS = {"anomalous": (176, 0, 32), "normal": (0, 96, 48), "": (0, 0, 0)}


class Shown(NamedTuple):
    """What a picture shows.

    Attributes:
        photo: The photo, upright, RGB, of the size given by `shown_size`.
        heat: Its anomaly map ``(H, W)``.
        color_range: Values of the map that get the lowest and the highest colour.
        name: Of the photo, printable.
        score: Image score, if there is one.
        decision: ``anomalous``, ``normal`` or empty.
        region: What is called anomalous ``(H, W)``: outlined on the heat map.
        truth: Ground truth ``(H, W)``: outlined on the photo.
        boxes: The regions, in pixels of the photo as it is shown: drawn on the heat map, with their scores.
    """

    photo: Image.Image
    heat: npt.NDArray[np.float32]
    color_range: tuple[float, float]
    name: str
    score: float | None = None
    decision: str = ""
    region: npt.NDArray[np.bool_] | None = None
    truth: npt.NDArray[np.bool_] | None = None
    boxes: Sequence[Region] = ()


def shown_size(width: int, height: int, side: int = SIDE) -> tuple[int, int]:
    """Width and height that a photo is shown at, in its own proportions; line scans twice as long, or nothing is seen."""
    longer = side * (2 if max(width, height) > _THIN * min(width, height) else 1)
    scale = longer / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def draw_picture(shown: Shown) -> Image.Image:
    """Draw it; wide photos stand above their heat maps, others beside them."""
    low, high = shown.color_range
    shades = ((shown.heat - low) / (high - low)).clip(0, 1)
    photo = shown.photo if shown.truth is None else outlined(shown.photo, shown.truth)
    panels = [photo, boxed(heat_map(shown.photo, shades, shown.region), shown.boxes, _TEXT)]
    photos = stacked(panels) if shown.photo.width > 2 * shown.photo.height else side_by_side(panels)
    width = max(_MIN_WIDTH, photos.width)
    title = shown.decision if shown.score is None else f"{shown.decision} {score_text(shown.score)}".strip()
    bar = _bar(f"{low:.2f}", f"{(low + high) / 2:.2f}", f"{high:.2f}")
    head = [text_block(title, _TITLE, width, _COLORS[shown.decision]), text_block(shown.name, _TEXT, width)]
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
