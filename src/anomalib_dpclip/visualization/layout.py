"""Pictures and text, one below or beside the other, on white."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageOps

from anomalib_dpclip.visualization.captions import font, wrapped

GAP = 8
MARGIN = 12
_LEADING = 4


def text_block(
    text: str, size: int, width: int, color: str | tuple[int, int, int] = "black", max_lines: int | None = None
) -> Image.Image:
    """A text in lines that fit into a width.

    Args:
        text: Printable text.
        size: Size of the font in pixels.
        width: Width of the picture in pixels.
        color: Colour of the text.
        max_lines: Number of lines at most, see `wrapped`.
    """
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
    width = sum(each.width for each in pictures) + GAP * (len(pictures) - 1)
    canvas = Image.new("RGB", (width, max(each.height for each in pictures)), "white")
    left = 0
    for each in pictures:
        canvas.paste(each, (left, 0))
        left += each.width + GAP
    return canvas


def framed(picture: Image.Image) -> Image.Image:
    """A picture with a margin around it."""
    return ImageOps.expand(picture, MARGIN, "white")
