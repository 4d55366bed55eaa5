"""What a line puts on its parts and a training has not seen: a printed label, and others that choices are made on."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from anomalib_dpclip.visualization.captions import font

JITTER = 3
"""Pixels by which a nuisance is off its place at most."""

LABEL_HEIGHT = 0.17
"""Of the label, of the image's side; it is twice as wide."""

Nuisance = Callable[[int, np.random.Generator], Image.Image]
"""Draws one for an image of a side in pixels, with what is opaque in the fourth channel."""


def label(side: int, rng: np.random.Generator) -> Image.Image:
    """A white label with a number and a bar code of its own."""
    height = round(LABEL_HEIGHT * side)
    drawn = Image.new("RGBA", (2 * height, height), (245, 245, 240, 255))
    draw = ImageDraw.Draw(drawn)
    draw.text((2, 1), f"LOT {rng.integers(10000):04}", "black", font(height // 2 - 1))
    left = 3
    while left < drawn.width - 4:
        width = int(rng.integers(1, 3))
        draw.rectangle((left, height // 2 + 1, left + width - 1, height - 4), fill="black")
        left += width + int(rng.integers(1, 3))
    draw.rectangle((0, 0, drawn.width - 1, height - 1), outline=(90, 90, 90))
    return drawn


def sticker(side: int, rng: np.random.Generator) -> Image.Image:
    """A round yellow sticker with a number."""
    size = round(0.26 * side)
    drawn = Image.new("RGBA", (size, size))
    draw = ImageDraw.Draw(drawn)
    draw.ellipse((0, 0, size - 1, size - 1), fill=(235, 200, 40), outline=(60, 60, 60))
    draw.text((0.2 * size, 0.28 * size), f"{rng.integers(1000):03}", "black", font(round(0.36 * size)))
    return drawn


def tape(side: int, rng: np.random.Generator) -> Image.Image:
    """A strip of blue tape with a white number."""
    height = round(0.13 * side)
    drawn = Image.new("RGBA", (3 * height, height), (30, 50, 120, 255))
    ImageDraw.Draw(drawn).text((3, 0.16 * height), f"{rng.integers(10**6):06}", "white", font(round(0.68 * height)))
    return drawn


def stamp(side: int, rng: np.random.Generator) -> Image.Image:
    """A date and a number in black ink, framed."""
    height = round(0.18 * side)
    drawn = Image.new("RGBA", (2 * height, height))
    draw = ImageDraw.Draw(drawn)
    draw.rectangle((0, 0, drawn.width - 1, height - 1), outline="black", width=2)
    draw.text((5, 2), f"{rng.integers(1, 29):02}.{rng.integers(1, 13):02}", "black", font(height // 2 - 3))
    draw.text((5, height // 2), f"No {rng.integers(1000):03}", "black", font(height // 2 - 3))
    return drawn


def with_nuisance(
    photo: Image.Image, nuisance: Nuisance, rng: np.random.Generator, place: tuple[int, int] | None
) -> tuple[Image.Image, Image.Image]:
    """A photo with a nuisance at about a place, or anywhere, and where it covers the photo."""
    drawn = nuisance(photo.height, rng)
    if place is None:
        corner = some_place(photo, nuisance, rng)
    else:
        corner = (place[0] + int(rng.integers(-JITTER, JITTER + 1)), place[1] + int(rng.integers(-JITTER, JITTER + 1)))
    covered, mask = photo.copy(), Image.new("L", photo.size)
    covered.paste(drawn, corner, drawn)
    mask.paste(drawn.getchannel("A"), corner)
    return covered, mask


def some_place(photo: Image.Image, nuisance: Nuisance, rng: np.random.Generator) -> tuple[int, int]:
    """Where a nuisance is whole, with room for the jitter."""
    width, height = nuisance(photo.height, np.random.default_rng(0)).size
    return int(rng.integers(JITTER, photo.width - width - JITTER)), int(rng.integers(JITTER, photo.height - height - JITTER))
