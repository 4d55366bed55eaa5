"""The picture of one prediction: photo and heat map side by side, with score, decision, boxes, name and colour bar."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from anomalib_dpclip.data.regions import Region
from anomalib_dpclip.post_processing.score_text import score_text
from anomalib_dpclip.visualization.captions import font, wrapped
from anomalib_dpclip.visualization.heat_map import boxed, heat_map, outlined

SIDE = 480
"""Longer side of photo and heat map in pixels."""

_THIN = 4
_MARGIN, _GAP = 12, 8
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
    width, height = shown.photo.size
    stacked = width > 2 * height
    inner = max(_MIN_WIDTH, width if stacked else 2 * width + _GAP)
    names = wrapped(shown.name, _TEXT, inner)
    top = _MARGIN + _TITLE + _GAP + len(names) * (_TEXT + 4) + _GAP
    bottom = top + (2 * height + _GAP if stacked else height)
    canvas = Image.new("RGB", (inner + 2 * _MARGIN, bottom + _GAP + _BAR[1] + _TEXT + 4 + _MARGIN), "white")
    draw = ImageDraw.Draw(canvas)
    title = shown.decision if shown.score is None else f"{shown.decision} {score_text(shown.score)}".strip()
    draw.text((_MARGIN, _MARGIN), title, _COLORS[shown.decision], font(_TITLE))
    for line, text in enumerate(names):
        draw.text((_MARGIN, _MARGIN + _TITLE + _GAP + line * (_TEXT + 4)), text, "black", font(_TEXT))
    for index, panel in enumerate(panels):
        offset = index * (height + _GAP if stacked else width + _GAP)
        canvas.paste(panel, (_MARGIN, top + offset) if stacked else (_MARGIN + offset, top))
    draw_color_bar(canvas, (_MARGIN, bottom + _GAP), shown.color_range)
    return canvas


def draw_color_bar(canvas: Image.Image, corner: tuple[int, int], color_range: tuple[float, float]) -> None:
    """Draw the heat map's colours, over grey, with the values of the map that they stand for.

    Args:
        canvas: Picture to draw on.
        corner: Upper left corner of the bar, which takes 12 pixels of height and 18 for its numbers.
        color_range: Values at its ends.
    """
    low, high = color_range
    canvas.paste(_bar(f"{low:.2f}", f"{(low + high) / 2:.2f}", f"{high:.2f}"), (corner[0], corner[1] - 2))


@lru_cache(maxsize=64)
def _bar(lowest: str, middle: str, highest: str) -> Image.Image:
    """With its numbers and, beside it, what it is of; most pictures have the same."""
    width, height = _BAR
    bar = Image.new("RGB", (width + _GAP + _LABEL_WIDTH, height + _TEXT + 6), "white")
    ramp = np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1))
    bar.paste(heat_map(Image.new("RGB", _BAR, (160, 160, 160)), ramp), (0, 2))
    draw = ImageDraw.Draw(bar)
    for position, number, anchor in ((0, lowest, "la"), (width // 2, middle, "ma"), (width, highest, "ra")):
        draw.text((position, height + 4), number, "black", font(_TEXT), anchor=anchor)
    draw.text((width + _GAP, 0), "anomaly map", "black", font(_TEXT))
    return bar
