import io

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from torchvision.transforms import v2
from torchvision.tv_tensors import Image, Mask

from anomalib_dpclip.benchmark.corruptions import CORRUPTIONS, corrupted

PIXELS = torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(0))


def pair():
    mask = torch.zeros(40, 60, dtype=torch.uint8)
    mask[10:20, 10:30] = 1
    return Image(PIXELS), Mask(mask)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_strength_changes_images_more_and_keeps_their_kind(name):
    distances = []
    for strength in CORRUPTIONS[name][1]:
        torch.manual_seed(0)
        image, mask = corrupted(name, strength, None)(*pair())
        assert (image.shape, image.dtype, mask.shape, mask.dtype) == (PIXELS.shape, torch.float32, (40, 60), torch.uint8)
        assert image.min() >= 0
        assert image.max() <= 1
        assert (mask == pair()[1]).all() == (name != "move")
        distances.append((image - PIXELS).abs().mean().item())
    assert distances[0] > 0
    if name != "move":  # noise is as far from itself at any distance
        assert distances == sorted(distances)


def test_jpeg_is_that_of_its_quality():
    encoded = io.BytesIO()
    Picture.fromarray((PIXELS * 255).round().byte().permute(1, 2, 0).numpy()).save(encoded, "JPEG", quality=10)
    expected = np.asarray(Picture.open(encoded)).astype(np.float32).transpose(2, 0, 1) / 255
    assert np.abs(corrupted("jpeg", 10, None)(pair()[0]).numpy() - expected).mean() < 0.02  # decoders differ by a little


def test_less_light_is_darker_by_its_factor_and_the_data_s_own_augmentation_follows():
    image, mask = corrupted("light", 0.5, v2.Pad(1))(*pair())
    assert image[:, 1:-1, 1:-1] == pytest.approx(PIXELS * 0.5)
    assert mask.shape == (42, 62)


def test_what_moves_takes_its_mask_along_and_is_mirrored_at_the_edge():
    image, mask = corrupted("move", 0.05, None)(*pair())
    assert (image[:, 2:, 2:] == PIXELS[:, :-2, :-2]).all()
    assert (image[:, 2:, 0] == PIXELS[:, :-2, 2]).all()
    assert (mask[2:, 2:] == pair()[1][:-2, :-2]).all()
