"""The one way anomaly maps are shown: laid over the photo, with a white line around a region."""

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import binary_erosion

COLORS = "turbo"
OPACITY = 0.75
"""Of the hottest colour. The cooler, the more of the photo shows through: normal regions stay recognisable."""


def heat_map(
    photo: Image.Image, heat: npt.NDArray[np.float32], region: npt.NDArray[np.bool_] | None = None, outline: int = 1
) -> Image.Image:
    """Lay an anomaly map over a photo.

    Args:
        photo: The photo, RGB.
        heat: Anomaly map ``(H, W)`` of its size, in [0, 1].
        region: What to draw a line around ``(H, W)``; nothing by default.
        outline: Width of the line in pixels.

    Returns:
        The picture, RGB.
    """
    colors = mpl.colormaps[COLORS](heat)
    colors[..., 3] = OPACITY * heat
    overlay = Image.fromarray((255 * colors).round().astype(np.uint8), "RGBA")
    pixels = np.array(Image.alpha_composite(photo.convert("RGBA"), overlay).convert("RGB"))
    if region is not None:
        pixels[region & ~binary_erosion(region, iterations=outline)] = 255
    return Image.fromarray(pixels)
