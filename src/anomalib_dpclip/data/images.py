"""Reading images and masks of every common kind, with one error that names the file.

An image becomes 8-bit RGB:

- grey, palette, CMYK, YCbCr: converted;
- 16-bit (also stored as 32-bit integers): 0..65535 becomes 0..255, one fixed scale whatever the range of the image, unless
  the file (TIFF: BitsPerSample, MaxSampleValue; PNG: sBIT) or the caller says that fewer bits are used;
- floating point: 0..1 becomes 0..255, other values are an error;
- alpha: laid over white, because what is stored under transparent pixels is arbitrary;
- EXIF orientation: applied; of several frames the first.

A mask is anomalous wherever it is neither black nor transparent (``!= 0``), whatever its kind.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import dropwhile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

# Other formats of Pillow's are no photographs, and some run helper programs (EPS) on what a stranger wrote.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
SIXTEEN_BIT_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "F", *SIXTEEN_BIT_MODES)

MAX_PIXELS = 178_956_970
"""Pixels of the largest image that is decoded unless a caller says otherwise; Pillow's own limit."""

_ORIENTATION, _ON_ITS_SIDE = 0x0112, {5, 6, 7, 8}
"""EXIF's tag, and its values for images that are stored lying on their side."""

_BITS_PER_SAMPLE, _MAX_SAMPLE_VALUE = 258, 281
"""TIFF's tags."""


class ImageReadError(ValueError):
    """An image or mask that cannot be used; the message names the file."""


def read_image(
    path: str | Path, max_pixels: int = MAX_PIXELS, side: int | None = None, bit_depth: int | None = None
) -> Image.Image:
    """Read an image as 8-bit RGB, upright; the module says what becomes of other kinds.

    Args:
        path: Image file in one of `FORMATS`.
        max_pixels: Refuse a larger image before it is decoded: a small file can fill the memory.
        side: Least length of the shorter side that is wanted, in pixels: a larger JPEG is only decoded as far as that takes.
        bit_depth: Bits that a 16-bit image uses, whatever its file says.

    Raises:
        ImageReadError: If the file is missing, damaged, no image, too large, or holds values that have no place in 0..255.
    """
    return to_rgb(load_image(path, max_pixels, side), path, bit_depth)


def photo_size(path: str | Path) -> tuple[int, int]:
    """Width and height of an image, upright, from the beginning of its file where that tells; raises as `open_image`."""
    with open_image(path) as image:
        on_its_side = image.width != image.height and orientation_of(image, path) in _ON_ITS_SIDE
        return (image.height, image.width) if on_its_side else image.size


def read_mask(
    path: str | Path, size: tuple[int, int] | None = None, image_path: str | Path | None = None
) -> npt.NDArray[np.uint8]:
    """Read a ground-truth mask ``(H, W)``, 1 where anomalous and 0 elsewhere; raises as `read_image`.

    ``size`` is the width and height that it must have: those of its image, as `read_image` returned it.
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


def load_image(path: str | Path, max_pixels: int = MAX_PIXELS, side: int | None = None) -> Image.Image:
    """Decode the first frame of a file, upright but in its own mode; arguments and errors are those of `read_image`."""
    with open_image(path, max_pixels) as image:
        if side is not None:
            image.draft(None, (side, side))  # does nothing but for JPEG
        image.load()
        depth = _stated_depth(image, path) if image.mode in SIXTEEN_BIT_MODES else None
        upright = ImageOps.exif_transpose(image)
    if upright.mode not in _MODES:
        raise ImageReadError(f"cannot read image {path}: colour mode {upright.mode}; save it as RGB or grey")
    if depth is not None:
        upright.info["bit_depth"] = depth
    return upright


@contextmanager
def open_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Open an image file without decoding it; raises as `read_image`, also for what cannot be read in the block."""
    # A pipe or a device would be waited for without end. Unlike pathlib, this is False for impossible names too.
    if not os.path.isfile(path):  # noqa: PTH113
        raise ImageReadError(f"no such image file: {path}")
    try:
        with Image.open(path, formats=FORMATS) as image:
            if (pixels := image.width * image.height) > max_pixels:
                limit = f"it has {pixels:,} pixels, {max_pixels:,} are the most that are read here"
                raise ImageReadError(f"cannot read image {path}: {limit}; make it smaller, or cut it up")  # noqa: TRY301
            yield image
    except ImageReadError:
        raise
    except Image.UnidentifiedImageError as error:
        raise ImageReadError(f"cannot read image {path}: empty, damaged or none of the formats {', '.join(FORMATS)}") from error
    except Exception as error:  # decoders let out whatever the bytes provoke: OSError, SyntaxError, struct.error
        raise ImageReadError(f"cannot read image {path}: {error or type(error).__name__}") from error


def orientation_of(image: Image.Image, path: str | Path) -> int:
    """How an image that `open_image` gave is stored: EXIF's 1 is upright, 5 to 8 lie on their side."""
    # Pillow decodes a whole PNG for what may follow its pixels: look whether anything does.
    chunks = (name for name, _ in _png_chunks(path))
    from_pixels = dropwhile(lambda name: name != b"IDAT", chunks)
    ends_in_pixels = image.format == "PNG" and {b"eXIf", b"iTXt", b"tEXt", b"zTXt"}.isdisjoint(from_pixels)
    exif = Image.Image.getexif(image) if ends_in_pixels else image.getexif()
    return exif.get(_ORIENTATION, 1)


def to_rgb(image: Image.Image, path: str | Path, bit_depth: int | None = None) -> Image.Image:
    """Convert an image that `load_image` returned to 8-bit RGB; arguments and errors are those of `read_image`."""
    if image.mode in SIXTEEN_BIT_MODES or image.mode == "F":
        depth = bit_depth or image.info.get("bit_depth", 16)
        values = np.asarray(image) / (1 if image.mode == "F" else 2**depth - 1)
        if not ((values >= 0) & (values <= 1)).all():  # also false for NaN
            bits, remedy = (
                (32, "convert it to 8 or 16 bits") if depth == 16 else (depth, "set bit_depth to what the camera has")
            )
            limits = f"{bits}-bit values must lie in 0..{2**depth - 1} if whole numbers and in 0..1 if not"
            raise ImageReadError(f"cannot read image {path}: {limits}; {remedy}")
        return Image.fromarray((values * 255).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _stated_depth(image: Image.Image, path: str | Path) -> int | None:
    """Bits that a 16-bit image uses, where its file says that they are fewer than 16."""
    stated = 16
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        stated = min(_first(tags.get(_BITS_PER_SAMPLE), 16), _first(tags.get(_MAX_SAMPLE_VALUE), 65535).bit_length())
    elif image.format == "PNG":
        stated = dict(_png_chunks(path)).get(b"sBIT", 16)
    largest = int(np.asarray(image).max())
    # What does not fit is scaled to all 16 bits, as PNG asks for; so is what ends in zeros only.
    scaled = largest >= 2**stated or not (np.asarray(image) & (2 ** (16 - stated) - 1)).any()
    return stated if 8 <= stated < 16 and not scaled else None


def _first(values: object, default: int) -> int:
    """First value of a TIFF tag, which may be missing, a number, or one number a channel."""
    value = values[0] if isinstance(values, tuple) and values else values
    return value if isinstance(value, int) else default


def _png_chunks(path: str | Path) -> Iterator[tuple[bytes, int]]:
    """Names and first bytes of a PNG's chunks."""
    with Path(path).open("rb") as file:
        file.seek(8)
        while len(header := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", header)
            yield name, int.from_bytes(file.read(1), "big")
            file.seek(length + 3, os.SEEK_CUR)
