import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.tv_tensors import Image as ImageTensor
from torchvision.tv_tensors import Mask

from anomalib_dpclip.auxiliary.dataset import colour_jitter, geometric

FILL = (0.25, 0.5, 0.75)
SIDE = 40


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def test_image_and_mask_move_together_as_often_as_four_coins_say():
    """300 augmentations of an image whose red channel is its mask."""
    before = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
    before[5:20, 12:19] = 1
    both = torch.stack([before.float(), torch.zeros(SIDE, SIDE), torch.ones(SIDE, SIDE)])
    results = [geometric(FILL)(ImageTensor(both), Mask(before)) for _ in range(300)]
    for image, mask in results:
        uncovered = image[2] == FILL[2]
        assert torch.equal(image[0] == 1, mask == 1)  # nearest sampling: nothing in between
        assert torch.equal(image[0] == FILL[0], uncovered)
        assert not mask[uncovered].any()
    same = sum(torch.equal(mask, before) for _, mask in results)
    assert 8 <= same <= 32  # expected 300 / 16 = 18.75, standard deviation 4.2


def test_translation_reaches_15_percent_and_not_further():
    transform = geometric(FILL).transforms[1]
    mask = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
    mask[SIDE // 2, SIDE // 2] = 1
    shifts = torch.stack([transform(Mask(mask)).nonzero()[0] - SIDE // 2 for _ in range(300)])
    assert shifts.abs().max() == 0.15 * SIDE
    assert 0.4 < shifts.any(dim=1).float().mean() < 0.6


def test_rotation_reaches_30_degrees_and_not_further():
    transform = geometric(FILL).transforms[0]
    mask = torch.zeros(201, 201, dtype=torch.uint8)
    mask[97:104, 187:194] = 1
    angles = []
    for _ in range(200):
        rows, columns = transform(Mask(mask)).nonzero(as_tuple=True)
        angles.append(math.degrees(math.atan2(rows.float().mean() - 100, columns.float().mean() - 100)))
    assert 25 < max(map(abs, angles)) < 31
    assert min(angles) < -20 < 20 < max(angles)


def test_colour_jitter_changes_colours_and_nothing_else():
    image = Image.fromarray(np.full((4, 4, 3), (90, 120, 60), dtype=np.uint8))
    results = [np.asarray(colour_jitter()(image)) for _ in range(200)]
    assert all(result.shape == (4, 4, 3) and (result == result[0, 0]).all() for result in results)
    same = sum((result == np.asarray(image)).all() for result in results)
    assert 0 < same < 20  # 0.3^3 of them; on an even image contrast changes little, and may change nothing
