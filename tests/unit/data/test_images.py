import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from anomalib_dpclip.data.images import ImageReadError, read_image, read_mask


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def pixels(path):
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image).tolist()


def test_rgb_is_unchanged(tmp_path):
    expected = [[[1, 2, 3], [254, 255, 0]]]
    assert pixels(save(tmp_path / "a.png", np.uint8(expected))) == expected


def test_grey(tmp_path):
    assert pixels(save(tmp_path / "a.png", np.uint8([[0, 7, 255]]))) == [[[0] * 3, [7] * 3, [255] * 3]]


def test_bilevel(tmp_path):
    assert pixels(save(tmp_path / "a.png", np.array([[False, True]]))) == [[[0] * 3, [255] * 3]]


def test_palette_shows_its_colours(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png") == [[[10, 20, 30], [200, 100, 50]]]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_scaled_and_not_clipped(tmp_path, suffix):
    path = save(tmp_path / f"a.{suffix}", np.uint16([[0, 257, 1000, 32896, 65535]]))
    assert [grey[0] for grey in pixels(path)[0]] == [0, 1, 4, 128, 255]


def test_32_bit_integers_count_as_16_bits(tmp_path):
    assert [grey[0] for grey in pixels(save(tmp_path / "a.tif", np.int32([[0, 32896, 65535]])))[0]] == [0, 128, 255]


def test_floating_point(tmp_path):
    assert [grey[0] for grey in pixels(save(tmp_path / "a.tif", np.float32([[0, 0.2, 1]])))[0]] == [0, 51, 255]


@pytest.mark.parametrize(
    "values", [np.float32([[0, 1.5]]), np.float32([[0, np.nan]]), np.int32([[0, 65536]]), np.int32([[-1]])]
)
def test_values_without_a_place_are_refused(tmp_path, values):
    with pytest.raises(ImageReadError, match=r"a\.tif: 32-bit values must lie in"):
        read_image(save(tmp_path / "a.tif", values))


def test_alpha_is_laid_over_white(tmp_path):
    rgba = save(tmp_path / "rgba.png", np.uint8([[[100, 0, 0, 255], [9, 9, 9, 0], [100, 0, 50, 51]]]))
    # 51 / 255 = 0.2: 100 * 0.2 + 255 * 0.8 = 224, and so on.
    assert pixels(rgba) == [[[100, 0, 0], [255] * 3, [224, 204, 214]]]
    assert pixels(save(tmp_path / "la.png", np.uint8([[[7, 255], [7, 0]]]))) == [[[7] * 3, [255] * 3]]


def test_a_transparent_colour_of_a_palette_is_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.gif", transparency=1)
    assert pixels(tmp_path / "a.gif") == [[[10, 20, 30], [255] * 3]]


def test_cmyk(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.tif")
    assert pixels(tmp_path / "a.tif")[0][0] == [255, 0, 0]


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [(1, [[1, 2, 3]]), (2, [[3, 2, 1]]), (3, [[3, 2, 1]]), (6, [[1], [2], [3]]), (8, [[3], [2], [1]])],
)
def test_exif_orientation_is_applied_to_image_and_mask(tmp_path, orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", np.uint8([[1, 2, 3]]), exif=exif)
    assert [[grey[0] for grey in row] for row in pixels(path)] == upright
    mask = save(tmp_path / "m.png", np.uint8([[0, 0, 9]]), exif=exif)
    assert read_mask(mask).tolist() == [[int(grey == 3) for grey in row] for row in upright]


def test_the_first_of_several_frames(tmp_path):
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert pixels(tmp_path / "a.webp")[0][0] == [255, 0, 0]
    # Several pictures in one JPEG, as phones save them.
    frames[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=frames[1:])
    red = pixels(tmp_path / "a.jpg")[0][0]
    assert red[0] > 250
    assert red[2] < 5


@pytest.mark.parametrize("size", [(1, 1), (20_000, 1)])
def test_extreme_sizes(tmp_path, size):
    Image.new("RGB", size, "red").save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").size == size


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.png", b"", "empty, damaged or none of the formats"),
        ("text.jpg", b"not an image", "empty, damaged or none of the formats"),
        # A format that Pillow would open, with a helper program.
        ("page.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "none of the formats"),
    ],
)
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_what_is_no_image_is_named(tmp_path, name, content, message, read):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageReadError, match=f"{name}.*{message}"):
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


def test_decompression_bombs_are_refused(tmp_path):
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    (tmp_path / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"\0\0\0\0IDAT"
    )
    with pytest.raises(ImageReadError, match=r"bomb\.png.*exceeds limit"):
        read_image(tmp_path / "bomb.png")


def test_an_unusual_colour_mode_is_refused(tmp_path):
    Image.new("LAB", (2, 2)).save(tmp_path / "a.tif")
    with pytest.raises(ImageReadError, match=r"a\.tif: colour mode LAB; save it as RGB or grey"):
        read_image(tmp_path / "a.tif")


def test_masks_of_all_kinds(tmp_path):
    """Every value but 0 is anomalous."""
    for name, array in {
        "grey.png": np.uint8([[0, 1, 255]]),
        "bilevel.png": np.array([[False, True, True]]),
        "16bit.png": np.uint16([[0, 1, 65535]]),
        "32bit.tif": np.int32([[0, 1, -5]]),
        "float.tif": np.float32([[0, 0.001, 7]]),
        # The grey value of this dark blue would be rounded to 0.
        "dark.png": np.uint8([[[0, 0, 0], [0, 0, 1], [255, 0, 0]]]),
        "transparent.png": np.uint8([[[255, 255, 255, 0], [1, 0, 0, 255], [0, 0, 9, 1]]]),
    }.items():
        mask = read_mask(save(tmp_path / name, array))
        assert mask.dtype == np.uint8
        assert mask.tolist() == [[0, 1, 1]], name


def test_a_palette_mask_goes_by_the_colours_shown(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").tolist() == [[1, 0]]


def test_a_mask_of_another_size_names_both_files(tmp_path):
    mask = save(tmp_path / "mask.png", np.zeros((4, 6), np.uint8))
    assert read_mask(mask, (6, 4)).shape == (4, 6)
    with pytest.raises(ImageReadError, match=r"mask\.png is 6x4, but its image photo\.png is 4x6"):
        read_mask(mask, (4, 6), "photo.png")


def _encoded(form):
    buffer = io.BytesIO()
    image = Image.fromarray(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3))
    image.save(buffer, form)
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
        assert read_image(path).mode == "RGB"
        assert set(np.unique(read_mask(path))) <= {0, 1}
    except ImageReadError as error:
        assert "fuzzed.img" in str(error)  # noqa: PT017  (either is right)


def test_more_pixels_than_a_caller_can_do_with_are_refused(tmp_path):
    path = save(tmp_path / "a.png", np.zeros((20, 30), np.uint8))
    assert read_image(path, max_pixels=600).size == (30, 20)
    with pytest.raises(ImageReadError, match=r"a\.png: it has 600 pixels, 599 are the most"):
        read_image(path, max_pixels=599)
