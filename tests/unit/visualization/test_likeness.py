"""The good photo that looks most like an image."""

import torch

from anomalib_dpclip.visualization.likeness import Likeness


def test_the_nearest_picture_s_name():
    photos = torch.rand(5, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    photos[:, :, :20] += torch.arange(5).view(5, 1, 1, 1)  # what is above the middle differs most
    likeness = Likeness([f"folder/{index}.png" for index in range(5)], photos)
    assert likeness.most_like(photos[[3, 0, 4]]) == ["3.png", "0.png", "4.png"]
    noisy = photos + 0.2 * torch.rand(photos.shape, generator=torch.Generator().manual_seed(1))
    assert likeness.most_like(noisy) == [f"{index}.png" for index in range(5)]
    assert likeness.most_like(photos[:1].half()) == ["0.png"]
