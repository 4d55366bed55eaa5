"""What is drawn on photos: heat maps as matplotlib and scipy would draw them, boxes, text that fits, and a look-alike."""

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import binary_erosion

from anomalib_dpclip.data.regions import Region
from anomalib_dpclip.visualization.heat_map import COLORS, OPACITY, boxed, heat_map, outlined
from anomalib_dpclip.visualization.layout import font, printable, wrapped
from anomalib_dpclip.visualization.likeness import Likeness


@pytest.fixture
def photo():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))


def test_colours_are_matplotlib_s_laid_over_the_photo(photo):
    heat = np.random.default_rng(1).random((40, 50), dtype=np.float32)
    colors = mpl.colormaps[COLORS](np.round(heat * 255).astype(int))[..., :3]
    opacity = OPACITY * np.round(heat * 255)[..., None] / 255
    expected = 255 * opacity * colors + (1 - opacity) * np.asarray(photo)
    assert np.abs(np.asarray(heat_map(photo, heat)) - expected).max() <= 1.5


@pytest.mark.parametrize("outline", [1, 3])
def test_outline_is_what_erosion_takes_away(photo, outline):
    region = np.random.default_rng(2).random((40, 50)) < 0.95
    region[:, :20] = True
    edge = region & ~binary_erosion(region, iterations=outline)
    before = photo.tobytes()
    picture = np.asarray(outlined(photo, region, outline))
    assert (picture[edge] == 255).all()
    assert (picture[~edge] == np.asarray(photo)[~edge]).all()
    assert photo.tobytes() == before


@pytest.mark.parametrize("box", [(0, 0, 40, 30), (30, 0, 40, 10), (0, 29, 1, 30), (10, 10, 11, 11), (10, 5, 20, 25)])
def test_boxes_are_drawn_inside(box):
    plain = Image.new("RGB", (40, 30), (200, 0, 200))
    pixels = np.asarray(boxed(plain, [Region(*box, 0.9, 1)])).astype(int)
    left, top, right, bottom = box
    rows, columns = np.nonzero((pixels == 0).all(-1))
    assert (rows.min(), rows.max()) == (max(0, top - 1), min(29, bottom))
    assert (columns.min(), columns.max()) == (max(0, left - 1), min(39, right))
    assert (pixels == 255).all(-1).any() or right - left == 1


def test_captions_are_whole_and_fit():
    text = "lot 4/" + "W" * 120 + "_$5_front.png"
    lines = wrapped(text, 14, 200)
    assert "".join(lines) == text
    assert all(font(14).getlength(line) <= 200 for line in lines)
    short = wrapped(text, 14, 200, 2)
    assert len(short) == 2
    assert "".join(short).startswith("lot 4/W")
    assert "".join(short).endswith("front.png")
    assert wrapped("two words", 14, 60) == ["two ", "words"]
    assert (wrapped("", 14, 200), wrapped("WW", 14, 1)) == ([], ["W", "W"])


def test_other_scripts_are_drawn():
    blank = font(14).getmask("\N{REPLACEMENT CHARACTER}")
    for character in "äßçŁЖλع":
        assert printable(character) == character
        assert bytes(font(14).getmask(character)) != bytes(blank)
    assert printable("a\r\n\t\udcff面.png") == "a?????.png"


def test_the_nearest_picture_s_name():
    photos = torch.rand(5, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    photos[:, :, :20] += torch.arange(5).view(5, 1, 1, 1)  # what is above the middle differs most
    likeness = Likeness([f"folder/{index}.png" for index in range(5)], photos)
    assert likeness.most_like(photos[[3, 0, 4]]) == ["3.png", "0.png", "4.png"]
    noisy = photos + 0.2 * torch.rand(photos.shape, generator=torch.Generator().manual_seed(1))
    assert likeness.most_like(noisy) == [f"{index}.png" for index in range(5)]
    assert likeness.most_like(photos[:1].half()) == ["0.png"]
