"""The one way anomaly maps are shown: laid over the photo, with a white line around a region, and boxes."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy.ndimage import binary_erosion
from torch import Tensor
from torch.nn import functional

from anomalib_dpclip.data.regions import Region
from anomalib_dpclip.visualization.layout import font

COLORS = "turbo"
OPACITY = 0.75
"""Of the hottest colour. The cooler, the more of the photo shows through: normal regions stay recognisable."""

_LEVELS = 256


def heat_map(
    photo: Image.Image, heat: npt.NDArray[np.float32], region: npt.NDArray[np.bool_] | None = None, outline: int = 1
) -> Image.Image:
    """Lay an anomaly map ``(H, W)`` in [0, 1] over a photo of its size, and draw a line around a region of it."""
    colors, opacity = _colors()
    levels = Image.fromarray((heat * (_LEVELS - 1)).round().astype(np.uint8))
    mask = levels.point(opacity)
    levels.putpalette(colors)
    picture = Image.composite(levels.convert("RGB"), photo.convert("RGB"), mask)
    return picture if region is None else outlined(picture, region, outline)


def outlined(photo: Image.Image, region: npt.NDArray[np.bool_], outline: int = 1) -> Image.Image:
    """Draw a white line, of a width in pixels, around a region ``(H, W)`` of a photo."""
    picture = photo.copy()
    picture.paste("white", mask=Image.fromarray(region & ~binary_erosion(region, iterations=outline)))
    return picture


def boxed(picture: Image.Image, regions: Sequence[Region], text: int = 0) -> Image.Image:
    """Draw the box of each region, in black and white to show on any colour, and inside the picture.

    If ``text`` is a size in pixels, the score of each is above or in its box.
    """
    drawn = picture.copy()
    draw = ImageDraw.Draw(drawn)
    for region in reversed(regions):  # the highest score is drawn last, over the others
        left, top = max(0, region.left - 1), max(0, region.top - 1)
        right, bottom = min(drawn.width - 1, region.right), min(drawn.height - 1, region.bottom)
        draw.rectangle((left, top, right, bottom), outline="black")
        if right > left + 1 and bottom > top + 1:
            draw.rectangle((left + 1, top + 1, right - 1, bottom - 1), outline="white")
        if text:
            above = region.top - text - 2 if region.top > text + 2 else region.top + 1
            draw.text((region.left + 1, above), f"{region.score:.2f}", "white", font(text), stroke_width=1, stroke_fill="black")
    return drawn


def color_range(heat: npt.NDArray[np.float32], is_calibrated: bool) -> tuple[float, float]:
    """Values of a map that get the lowest and the highest colour.

    All of [0, 1]; without a calibration maps fill little of it, and a photo's own range is all there is to go by.
    """
    low, high = float(heat.min()), float(heat.max())
    return (0.0, 1.0) if is_calibrated or low == high else (low, high)


def shown_map(values: Tensor, size: tuple[int, int], mode: str = "bilinear") -> npt.NDArray[np.float32]:
    """Resize a map or mask ``(H, W)`` to the height and width that it is shown at; ``nearest`` for masks."""
    plane = values.detach().float().reshape(1, 1, *values.shape[-2:])
    return functional.interpolate(plane, size, mode=mode)[0, 0].cpu().numpy()


@cache
def _colors() -> tuple[list[int], list[int]]:
    """Colours, red, green and blue of each of the 256 levels in turn, and the opacity of each, in 0..255."""
    import matplotlib as mpl

    colors = mpl.colormaps[COLORS](np.arange(_LEVELS))[:, :3]
    opacity = OPACITY * np.linspace(0, 1, _LEVELS)
    return (255 * colors).round().astype(int).flatten().tolist(), (255 * opacity).round().astype(int).tolist()
