import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.pictures import turned

from anomalib_dpclip.data.images import ImageReadError, photo_size, read_image, read_mask


def save(path, array, **options):
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(path, **options)
    return path


def palette(*colours):
    image = Image.new("P", (len(colours), 1))
    image.putpalette([value for colour in colours for value in colour])
    for index in range(len(colours)):
        image.putpixel((index, 0), index)
    return image


def greys(*values):
    return [[[value] * 3 for value in values]]


@pytest.mark.parametrize(
    ("name", "image", "options", "expected"),
    [
        ("rgb.png", np.uint8([[[1, 2, 3], [254, 255, 0]]]), {}, [[[1, 2, 3], [254, 255, 0]]]),
        ("grey.png", np.uint8([[0, 7, 255]]), {}, greys(0, 7, 255)),
        ("bilevel.png", np.array([[False, True]]), {}, greys(0, 255)),
        ("palette.png", palette((10, 20, 30), (200, 100, 50)), {}, [[[10, 20, 30], [200, 100, 50]]]),
        ("cmyk.tif", Image.new("CMYK", (1, 1), (0, 255, 255, 0)), {}, [[[255, 0, 0]]]),
        # Scaled, not clipped; 32-bit integers count as 16 bits.
        ("16.png", np.uint16([[0, 257, 1000, 32896, 65535]]), {}, greys(0, 1, 4, 128, 255)),
        ("16.tif", np.uint16([[0, 257, 1000, 32896, 65535]]), {}, greys(0, 1, 4, 128, 255)),
        ("32.tif", np.int32([[0, 32896, 65535]]), {}, greys(0, 128, 255)),
        ("float.tif", np.float32([[0, 0.2, 1]]), {}, greys(0, 51, 255)),
        # What is transparent is white: 51 / 255 = 0.2, and 100 * 0.2 + 255 * 0.8 = 224.
        (
            "rgba.png",
            np.uint8([[[100, 0, 0, 255], [9, 9, 9, 0], [100, 0, 50, 51]]]),
            {},
            [[[100, 0, 0], [255] * 3, [224, 204, 214]]],
        ),
        ("la.png", np.uint8([[[7, 255], [7, 0]]]), {}, greys(7, 255)),
        ("transparent.gif", palette((10, 20, 30), (200, 100, 50)), {"transparency": 1}, [[[10, 20, 30], [255] * 3]]),
    ],
)
def test_images_of_all_kinds(tmp_path, name, image, options, expected):
    read = read_image(save(tmp_path / name, image, **options))
    assert read.mode == "RGB"
    assert np.asarray(read).tolist() == expected


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.float32([[0, 1.5]]), "32-bit values must lie in"),
        (np.float32([[0, np.nan]]), "32-bit values must lie in"),
        (np.int32([[0, 65536]]), r"32-bit values must lie in 0\.\.65535"),
        (np.int32([[-1]]), "32-bit values must lie in"),
        (Image.new("LAB", (2, 2)), "colour mode LAB; save it as RGB or grey"),
    ],
)
def test_values_without_a_place_are_refused(tmp_path, image, message):
    with pytest.raises(ImageReadError, match=rf"a\.tif: {message}"):
        read_image(save(tmp_path / "a.tif", image))


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [(1, [[1, 2, 3]]), (2, [[3, 2, 1]]), (3, [[3, 2, 1]]), (6, [[1], [2], [3]]), (8, [[3], [2], [1]])],
)
def test_exif_orientation_is_applied_to_image_mask_and_size(tmp_path, orientation, upright):
    path = save(tmp_path / "a.png", np.uint8([[1, 2, 3]]), exif=turned(orientation))
    assert np.asarray(read_image(path))[..., 0].tolist() == upright
    assert photo_size(path) == (len(upright[0]), len(upright))
    mask = save(tmp_path / "m.png", np.uint8([[0, 0, 9]]), exif=turned(orientation))
    assert read_mask(mask).tolist() == [[int(grey == 3) for grey in row] for row in upright]


def test_an_orientation_behind_the_pixels_of_a_png(tmp_path):
    path = save(tmp_path / "a.png", np.uint8([[1, 2, 3]]))
    body = b"eXIf" + turned().tobytes()[6:]
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    path.write_bytes(path.read_bytes()[:-12] + chunk + path.read_bytes()[-12:])
    assert photo_size(path) == read_image(path).size == (1, 3)


def test_a_png_without_pixels_is_named_for_what_it_lacks(tmp_path):
    path = save(tmp_path / "a.png", np.uint8([[1, 2, 3]]))
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"IDAT") - 4] + content[-12:])
    assert photo_size(path) == (3, 1)
    with pytest.raises(ImageReadError, match=r"a.png: cannot load this image"):
        read_image(path)


def test_the_first_of_several_frames(tmp_path):
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    frames[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=frames[1:])  # as phones save them
    for name in ("a.webp", "a.jpg"):
        red, _, blue = np.asarray(read_image(tmp_path / name))[0, 0]
        assert (red > 250, blue < 5) == (True, True)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.png", b""),
        ("text.jpg", b"not an image"),
        # A format that Pillow would open, with a helper program.
        ("page.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"),
    ],
)
@pytest.mark.parametrize("read", [read_image, read_mask, photo_size])
def test_what_is_no_image_is_named(tmp_path, name, content, read):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageReadError, match=f"{name}.*none of the formats"):
        read(tmp_path / name)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "webp"])
def test_truncated_files_are_named(tmp_path, suffix):
    rng = np.random.default_rng(0)
    path = save(tmp_path / f"photo.{suffix}", rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ImageReadError, match=rf"photo\.{suffix}"):
        read_image(path)


@pytest.mark.parametrize("name", ["nothing.png", "folder", "pipe", "impossible\0.png", "a" * 5000])
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path, name):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageReadError, match="no such image file"):
        read_image(tmp_path / name)


def test_more_pixels_than_can_be_done_with_are_refused(tmp_path):
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "bomb.png").write_bytes(start + b"\0\0\0\0IDAT")
    with pytest.raises(ImageReadError, match=r"bomb\.png.*exceeds limit"):
        read_image(tmp_path / "bomb.png")
    path = save(tmp_path / "a.png", np.zeros((20, 30), np.uint8))
    assert read_image(path, max_pixels=600).size == (30, 20)
    with pytest.raises(ImageReadError, match=r"a\.png: it has 600 pixels, 599 are the most"):
        read_image(path, max_pixels=599)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("grey.png", np.uint8([[0, 1, 255]])),
        ("bilevel.png", np.array([[False, True, True]])),
        ("16bit.png", np.uint16([[0, 1, 65535]])),
        ("32bit.tif", np.int32([[0, 1, -5]])),
        ("float.tif", np.float32([[0, 0.001, 7]])),
        # The grey value of this dark blue would be rounded to 0.
        ("dark.png", np.uint8([[[0, 0, 0], [0, 0, 1], [255, 0, 0]]])),
        ("transparent.png", np.uint8([[[255, 255, 255, 0], [1, 0, 0, 255], [0, 0, 9, 1]]])),
        ("palette.png", palette((0, 0, 0), (255, 255, 255), (0, 9, 0))),
    ],
)
def test_every_value_of_a_mask_but_0_is_anomalous(tmp_path, name, image):
    mask = read_mask(save(tmp_path / name, image))
    assert mask.dtype == np.uint8
    assert mask.tolist() == [[0, 1, 1]]


def test_a_mask_of_another_size_names_both_files(tmp_path):
    mask = save(tmp_path / "mask.png", np.zeros((4, 6), np.uint8))
    assert read_mask(mask, (6, 4)).shape == (4, 6)
    with pytest.raises(ImageReadError, match=r"mask\.png is 6x4, but its image photo\.png is 4x6"):
        read_mask(mask, (4, 6), "photo.png")


def _encoded(form):
    buffer = io.BytesIO()
    Image.fromarray(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)).save(buffer, form)
    return buffer.getvalue()


ENCODED = [_encoded(form) for form in ("PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP", "PPM", "JPEG2000")]


# Pillow warns of some damage that it reads around.
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=400, deadline=None, derandomize=True)
@given(data=st.data())
def test_damaged_bytes_give_an_image_or_one_error_that_names_the_file(tmp_path_factory, data):
    content = bytearray(data.draw(st.sampled_from(ENCODED)))
    for position, value in data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=8)):
        content[position] = value
    length = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    path = tmp_path_factory.getbasetemp() / "fuzzed.img"
    path.write_bytes(content[:length])
    try:
        assert photo_size(path)
        assert read_image(path).mode == "RGB"
        assert set(np.unique(read_mask(path))) <= {0, 1}
    except ImageReadError as error:
        assert "fuzzed.img" in str(error)  # noqa: PT017  (either is right)
