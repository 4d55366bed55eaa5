"""Plain pictures and masks of labelled sets, for what looks at names and labels."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (16, 12)


def picture(path: Path, value: int = 100, size: tuple[int, int] = SIZE) -> Path:
    """Write a picture of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 0, 0)).save(path)
    return path


def mask(path: Path, size: tuple[int, int] = SIZE, value: int = 255) -> Path:
    """Write a mask with a region of 3 x 6 pixels, or as much of it as lies in the mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros(size[::-1], np.uint8)
    values[2:5, 3:9] = value
    Image.fromarray(values).save(path)
    return path


def turned(orientation: int = 6) -> Image.Exif:
    """EXIF of a photo that is not stored upright."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif
