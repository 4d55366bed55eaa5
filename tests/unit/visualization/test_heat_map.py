"""The heat map drawn by Pillow's palettes is the one that matplotlib and scipy would draw."""

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_erosion

from anomalib_dpclip.visualization.heat_map import COLORS, OPACITY, heat_map, outlined


@pytest.fixture
def photo():
    values = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    return Image.fromarray(values)


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
