"""Reading images and masks of every common kind, with one error that names the file.

anomalib's own readers clip 16-bit values at 255, ignore the camera's orientation and let a damaged file through as a
bare ``OSError``. Here an image becomes 8-bit RGB:

- grey, palette, CMYK, YCbCr: converted;
- 16-bit (also stored as 32-bit integers): 0..65535 becomes 0..255, one fixed scale whatever the range of the image;
- floating point: 0..1 becomes 0..255, other values are an error;
- alpha: laid over white, as pages show it, because what is stored under transparent pixels is arbitrary;
- EXIF orientation: applied, so that image, mask and map look as a viewer shows them;
- several frames: the first.

A mask is anomalous wherever it is neither black nor transparent (``!= 0``), whatever its kind.
"""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

# Other formats of Pillow's are no photographs, and some run helper programs (EPS) on what a stranger wrote.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
SIXTEEN_BIT_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "F", *SIXTEEN_BIT_MODES)


class ImageReadError(ValueError):
    """An image or mask that cannot be used; the message names the file."""


def read_image(path: str | Path) -> Image.Image:
    """Read an image as 8-bit RGB, upright; the module says what becomes of other kinds.

    Args:
        path: Image file in one of `FORMATS`.

    Raises:
        ImageReadError: If the file is missing, empty, truncated, no image, implausibly large, or holds values that
            have no place in 0..255.
    """
    return to_rgb(load_image(path), path)


def read_mask(
    path: str | Path, size: tuple[int, int] | None = None, image_path: str | Path | None = None
) -> npt.NDArray[np.uint8]:
    """Read a ground-truth mask.

    Args:
        path: Mask file in one of `FORMATS`.
        size: Width and height that the mask must have: those of its image, as `read_image` returned it.
        image_path: The mask's image, for the error message.

    Returns:
        (H, W) array, 1 where anomalous and 0 elsewhere.

    Raises:
        ImageReadError: As in `read_image`, or if the mask's size is not ``size``.
    """
    mask = load_image(path)
    if size is not None and mask.size != size:
        image = f"its image {image_path}" if image_path else "its image"
        raise ImageReadError(
            f"mask {path} is {mask.width}x{mask.height}, but {image} is {size[0]}x{size[1]}: "
            f"save the mask at the size of the image (after EXIF rotation)"
        )
    if mask.mode in (*SIXTEEN_BIT_MODES, "F", "L", "1"):
        return (np.asarray(mask) != 0).astype(np.uint8)
    # A grey conversion would round dark colours to 0.
    values = np.asarray(mask.convert("RGBA"))
    return ((values[..., :3] != 0).any(-1) & (values[..., 3] != 0)).astype(np.uint8)


def load_image(path: str | Path) -> Image.Image:
    """Decode the first frame of a file, upright but in its own mode.

    Raises:
        ImageReadError: If the file is missing, empty, truncated, no image or implausibly large.
    """
    # A pipe or a device would be waited for without end. Unlike pathlib, this is False for impossible names too.
    if not os.path.isfile(path):  # noqa: PTH113
        raise ImageReadError(f"no such image file: {path}")
    try:
        with Image.open(path, formats=FORMATS) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
    except Image.UnidentifiedImageError as error:
        raise ImageReadError(f"cannot read image {path}: empty, damaged or none of the formats {', '.join(FORMATS)}") from error
    except Exception as error:  # decoders let out whatever the bytes provoke: OSError, SyntaxError, struct.error
        raise ImageReadError(f"cannot read image {path}: {error or type(error).__name__}") from error
    if upright.mode not in _MODES:
        raise ImageReadError(f"cannot read image {path}: colour mode {upright.mode}; save it as RGB or grey")
    return upright


def to_rgb(image: Image.Image, path: str | Path) -> Image.Image:
    """Convert an image that `load_image` returned to 8-bit RGB.

    Args:
        image: The image.
        path: Its file, for the error message.

    Raises:
        ImageReadError: If it holds values that have no place in 0..255.
    """
    if image.mode in SIXTEEN_BIT_MODES or image.mode == "F":
        values = np.asarray(image) / (1 if image.mode == "F" else 65535)
        if not ((values >= 0) & (values <= 1)).all():  # also false for NaN
            raise ImageReadError(
                f"cannot read image {path}: 32-bit values must lie in 0..65535 if whole numbers and in 0..1 if not; "
                f"convert it to 8 or 16 bits"
            )
        return Image.fromarray((values * 255).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
