"""Text and pictures, one below or beside the other, on white: any file name can be drawn, and nothing is cut off."""

import os
from bisect import bisect
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

GAP = 8
MARGIN = 12
_LEADING = 4


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has Latin, Greek, Cyrillic, Arabic and more; Pillow's own has no umlauts."""
    import matplotlib as mpl

    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


@cache
def _drawable() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(font(1).path)).get_charmap())


def printable(path: str | Path) -> str:
    """A path as it can be drawn: what the font does not have, or would break the line, becomes a question mark.

    Example:
        >>> printable("Stück" + chr(0xDCFF) + chr(13) + "$5_$6.png")
        'Stück??$5_$6.png'
    """
    text = os.fsencode(path).decode("utf-8", "replace").replace("\ufffd", "?")
    return "".join(character if character.isprintable() and ord(character) in _drawable() else "?" for character in text)


def wrapped(text: str, size: int, width: int, max_lines: int | None = None) -> list[str]:
    """Break a printable text into lines of a width, after a space or, as file names have few, between any two characters.

    Of a text of more lines than ``max_lines`` the middle is left out, for the end of a file name says most.
    """
    lines, kept = _broken(text, size, width), len(text)
    while max_lines is not None and len(lines) > max_lines:
        kept = min(kept - 1, kept * max_lines // len(lines) + 1)
        lines = _broken(f"{text[: kept // 2]}...{text[len(text) - (kept - kept // 2) :]}", size, width)
    return lines


def _broken(text: str, size: int, width: int) -> list[str]:
    lines = []
    while text:
        fitting = bisect(range(len(text) + 1), float(width), lo=2, key=lambda count: font(size).getlength(text[:count])) - 1
        count = text.rfind(" ", fitting // 2, fitting) + 1 or fitting if fitting < len(text) else fitting
        lines.append(text[:count])
        text = text[count:]
    return lines


def text_block(
    text: str, size: int, width: int, color: str | tuple[int, int, int] = "black", max_lines: int | None = None
) -> Image.Image:
    """A text as a picture of a width, in lines as `wrapped` makes them."""
    lines = wrapped(text, size, width, max_lines)
    block = Image.new("RGB", (width, len(lines) * (size + _LEADING)), "white")
    draw = ImageDraw.Draw(block)
    for index, line in enumerate(lines):
        draw.text((0, index * (size + _LEADING)), line, color, font(size))
    return block


def stacked(pictures: Sequence[Image.Image], gap: int = GAP) -> Image.Image:
    """Pictures below each other, from the left."""
    height = sum(each.height for each in pictures) + gap * (len(pictures) - 1)
    canvas = Image.new("RGB", (max(each.width for each in pictures), height), "white")
    top = 0
    for each in pictures:
        canvas.paste(each, (0, top))
        top += each.height + gap
    return canvas


def side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures beside each other, from the top."""
    turned = stacked([each.transpose(Image.Transpose.TRANSPOSE) for each in pictures])
    return turned.transpose(Image.Transpose.TRANSPOSE)


def framed(picture: Image.Image) -> Image.Image:
    """A picture with a margin around it."""
    return ImageOps.expand(picture, MARGIN, "white")
