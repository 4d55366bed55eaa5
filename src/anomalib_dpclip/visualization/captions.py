"""Text on pictures: any file name can be drawn, and nothing is cut off."""

import os
from functools import cache
from pathlib import Path

from PIL import ImageFont


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has Latin, Greek, Cyrillic, Arabic and more; Pillow's own has no umlauts."""
    return ImageFont.truetype(_font_file(), size)


@cache
def _drawable() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(_font_file()).get_charmap())


def _font_file() -> str:
    import matplotlib as mpl

    return str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


def printable(path: str | Path) -> str:
    """A path as it can be drawn: what the font does not have, or would break the line, becomes a question mark.

    Example:
        >>> printable("Stück" + chr(0xDCFF) + chr(13) + "$5_$6.png")
        'Stück??$5_$6.png'
    """
    text = os.fsencode(path).decode("utf-8", "replace").replace("\ufffd", "?")
    return "".join(character if character.isprintable() and ord(character) in _drawable() else "?" for character in text)


def wrapped(text: str, size: int, width: int, most: int | None = None) -> list[str]:
    """Break a text into lines that fit, after a space or, as file names have few, between any two characters.

    Args:
        text: Printable text.
        size: Of the font, in pixels.
        width: Pixels a line may take.
        most: Lines at most; of a longer text the middle is left out, for the end of a file name says most. Default: any
            number.

    Returns:
        The lines; none if there is no text.
    """
    lines = _broken(text, size, width)
    if most is None or len(lines) <= most:
        return lines
    kept = len(text)
    while len(lines) > most:
        kept = min(kept - 1, kept * most // len(lines) + 1)
        lines = _broken(f"{text[: kept // 2]}...{text[len(text) - (kept - kept // 2) :]}", size, width)
    return lines


def _broken(text: str, size: int, width: int) -> list[str]:
    lines, rest = [], text
    while rest:
        count = len(rest)
        while count > 1 and font(size).getlength(rest[:count]) > width:
            count = min(count - 1, int(count * width / font(size).getlength(rest[:count])) + 1)
        if count < len(rest):
            count = rest.rfind(" ", count // 2, count) + 1 or count
        lines.append(rest[:count])
        rest = rest[count:]
    return lines
