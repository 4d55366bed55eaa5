"""Photos of soft noise, plain or with a spot, for what needs to look like nothing in particular."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


def soft_photo(path: Path, seed: int, spot: tuple[int, int] | None = None, size: tuple[int, int] = (140, 140)) -> Path:
    """Write soft noise ``(width, height)``, and where it is asked for a spot of two colours, 40 pixels wide and 30 high, with
    this left upper corner.
    """
    noise = np.random.default_rng(seed).integers(90, 110, (14, 14, 3), np.uint8)
    image = Image.fromarray(noise).resize(size, Image.Resampling.BILINEAR)
    if spot is not None:
        ImageDraw.Draw(image).rectangle((*spot, spot[0] + 40, spot[1] + 30), "white", "black", 6)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path
