"""How a contact sheet is laid out: rows of thumbnails below their headings, each with its score and name."""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from anomalib_dpclip.post_processing.score_text import score_text
from anomalib_dpclip.visualization.captions import font, wrapped

_MARGIN, _GAP = 12, 8
_HEADING, _TEXT = 17, 12
_LINE = _TEXT + 3
_NAME_LINES = 3


class Thumbnail(NamedTuple):
    """What the sheet keeps of an image.

    Attributes:
        name: Its last folder and name, printable.
        score: Image score.
        picture: Its heat map, small, with a line around the ground truth.
        is_bare: Whether the image is called anomalous, and nothing in it.
    """

    name: str
    score: float
    picture: Image.Image
    is_bare: bool = False


def draw_sheet(legend: str, rows: Sequence[tuple[str, Sequence[Thumbnail]]], columns: int, side: int) -> Image.Image:
    """Draw a sheet.

    Args:
        legend: What it shows, above all rows.
        rows: Heading and thumbnails of each row.
        columns: Thumbnails a row has place for.
        side: Longest side of a thumbnail in pixels.
    """
    width = 2 * _MARGIN + columns * side + (columns - 1) * _GAP
    inner = width - 2 * _MARGIN
    head = wrapped(legend, _TEXT, inner)
    top = _MARGIN + len(head) * _LINE + _GAP
    places: list[tuple[int, list[str], Sequence[Thumbnail]]] = []
    for heading, thumbnails in rows:
        lines = wrapped(heading, _HEADING, inner)
        places.append((top, lines, thumbnails))
        top += len(lines) * (_HEADING + 4) + (_GAP + _height(thumbnails, side) if thumbnails else 0) + _GAP
    canvas = Image.new("RGB", (width, top + _MARGIN), "white")
    draw = ImageDraw.Draw(canvas)
    _write(draw, _MARGIN, _MARGIN, head, _TEXT, _LINE)
    for y, lines, thumbnails in places:
        _write(draw, _MARGIN, y, lines, _HEADING, _HEADING + 4)
        below = y + len(lines) * (_HEADING + 4) + _GAP
        for index, thumbnail in enumerate(thumbnails):
            x = _MARGIN + index * (side + _GAP)
            tallest = max(each.picture.height for each in thumbnails)
            canvas.paste(thumbnail.picture, (x, below + tallest - thumbnail.picture.height))
            _write(draw, x, below + tallest + 4, _caption(thumbnail, side), _TEXT, _LINE)
    return canvas


def _height(thumbnails: Sequence[Thumbnail], side: int) -> int:
    captions = max(len(_caption(each, side)) for each in thumbnails)
    return max(each.picture.height for each in thumbnails) + 4 + captions * _LINE


def _caption(thumbnail: Thumbnail, side: int) -> list[str]:
    score = f"{score_text(thumbnail.score)}{', no box' if thumbnail.is_bare else ''}"
    return [score, *wrapped(thumbnail.name, _TEXT, side, _NAME_LINES)]


def _write(draw: ImageDraw.ImageDraw, x: int, y: int, lines: Sequence[str], size: int, pitch: int) -> None:
    for index, line in enumerate(lines):
        draw.text((x, y + index * pitch), line, "black", font(size))
