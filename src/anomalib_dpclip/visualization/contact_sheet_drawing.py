"""How a contact sheet is laid out: rows of thumbnails below their headings, each with its score and name."""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageOps

from anomalib_dpclip.post_processing.score_text import score_text
from anomalib_dpclip.visualization.layout import GAP, framed, side_by_side, stacked, text_block

_HEADING, _TEXT = 17, 12
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
    width = columns * (side + GAP) - GAP
    parts = [text_block(legend, _TEXT, width)]
    for heading, thumbnails in rows:
        parts.append(text_block(heading, _HEADING, width))
        if thumbnails:
            tallest = max(each.picture.height for each in thumbnails)
            parts.append(side_by_side([_captioned(each, side, tallest) for each in thumbnails]))
    return framed(stacked(parts))


def _captioned(thumbnail: Thumbnail, side: int, height: int) -> Image.Image:
    """A thumbnail at the bottom left of a place for it, its score and name below."""
    score = f"{score_text(thumbnail.score)}{', no box' if thumbnail.is_bare else ''}"
    picture = ImageOps.pad(thumbnail.picture, (side, height), color="white", centering=(0, 1))
    name = text_block(thumbnail.name, _TEXT, side, max_lines=_NAME_LINES)
    return stacked([picture, text_block(score, _TEXT, side), name], gap=2)
