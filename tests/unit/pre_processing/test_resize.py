"""Resizing against Pillow's own, of the same 8-bit photographs: as tensors of data modules, and as it is exported."""

import numpy as np
import pytest
import torch
from anomalib.data import MVTecAD
from anomalib.data.transforms.utils import extract_transforms_by_type
from anomalib.data.utils import read_image as read_anomalib_image
from PIL import Image
from torchvision.transforms import v2
from torchvision.tv_tensors import Image as ImageTensor
from torchvision.tv_tensors import Mask

from anomalib_dpclip.clip.pretraining import OPENAI
from anomalib_dpclip.data.images import read_image
from anomalib_dpclip.pre_processing.pre_processor import CLIPPreProcessor
from anomalib_dpclip.pre_processing.resize import EightBitResize, ExportableResize, bicubic_weights, resize_bilinear

SIZES = [(28, 28), (14, 9), (100, 41), (29, 27), (300, 3), (1, 1), (140, 560), (333, 500), (481, 640), (97, 1200)]
TARGETS = [(28, 21), (140, 140)]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def photographs(size):
    """Five kinds of picture, as files come in, from colour noise to a single bit."""
    y, x = np.mgrid[: size[0], : size[1]]
    waves = np.stack([np.sin(x / 17 + y / 29), np.cos(x / 41), np.sin(y / 11)], axis=-1)
    grey = Image.fromarray(noise(*size)[..., 0])
    return {
        "noise": Image.fromarray(noise(*size)),
        "smooth": Image.fromarray((127.5 + 127.5 * waves).round().astype(np.uint8)),
        "stripes": Image.fromarray((255 * ((x // 3 + y // 2) % 2)).astype(np.uint8)).convert("RGB"),
        "grey": grey.convert("RGB"),
        "one bit": grey.convert("1").convert("RGB"),
    }


PHOTOGRAPHS = [pytest.param(each, id=f"{kind} {size}") for size in SIZES for kind, each in photographs(size).items()]


def as_pillow(photo: Image.Image, target: tuple[int, int]) -> np.ndarray:
    """Rows first, as Pillow before version 13 and, of images that are not taller than wide, every version does it."""
    narrow = photo.resize((target[1], photo.height), Image.Resampling.BICUBIC)
    return np.asarray(narrow.resize(target[::-1], Image.Resampling.BICUBIC)).astype(np.int16)


def steps_apart(resized: torch.Tensor, expected: np.ndarray) -> np.ndarray:
    """How many 8-bit steps each value of a float image is from those expected."""
    values = resized.permute(1, 2, 0).numpy() * 255
    assert abs(values - values.round()).max() < 1e-3
    return abs(values.round().astype(np.int16) - expected)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("photo", PHOTOGRAPHS)
def test_the_resize_is_pillows_and_the_exported_one_but_for_rare_roundings(photo, target):
    image = v2.functional.to_dtype(v2.functional.to_image(photo), torch.float32, scale=True)
    expected = as_pillow(photo, target)
    assert not steps_apart(EightBitResize(target)(image), expected).any()
    assert torch.equal(EightBitResize(target)(v2.functional.to_image(photo)) / 255, EightBitResize(target)(image))
    apart = steps_apart(ExportableResize(target)(image.as_subclass(torch.Tensor)), expected)
    assert apart.max() <= 2
    if photo.width >= photo.height:  # of these every version of Pillow does the same in one call
        assert np.array_equal(expected, np.asarray(photo.resize(target[::-1], Image.Resampling.BICUBIC)))
    # Black and white alone make sums that lie exactly half-way between two steps, many times over: either is right.
    assert (apart > 0).mean() < 0.01 or (apart.max() == 1 and len(np.unique(photo)) == 2)


def test_images_and_masks_of_a_batch_at_once():
    photos = [photographs((30, 50))[kind] for kind in ("noise", "smooth")]
    images = torch.stack([torch.from_numpy(np.array(photo)).permute(2, 0, 1) / 255 for photo in photos])
    masks = Mask(torch.arange(2 * 30 * 50).reshape(2, 30, 50) % 2)
    resized, resized_masks = EightBitResize((20, 10))(ImageTensor(images), masks)
    assert isinstance(resized, ImageTensor)
    assert isinstance(resized_masks, Mask)
    for image, photo in zip(resized.as_subclass(torch.Tensor), photos, strict=True):
        assert not steps_apart(image, as_pillow(photo, (20, 10))).any()
    assert torch.equal(resized_masks, v2.Resize([20, 10])(masks))
    assert EightBitResize((20, 10))(images[:0]).shape == (0, 3, 20, 10)


def test_weights_by_hand_and_images_of_the_right_size_left_as_they_are():
    image = torch.rand(2, 3, 28, 21)
    assert torch.equal(ExportableResize((28, 21))(image), image)
    assert torch.equal(EightBitResize((28, 21))(image), image)
    # Two pixels to four: centres 0.25, 0.75, 1.25, 1.75. The first is 0.25 from pixel 0 and 1.25 from pixel 1, where the
    # kernel is 0.8671875 and -0.0703125; normalised by their sum.
    first = torch.tensor([0.8671875, -0.0703125]) / 0.796875
    torch.testing.assert_close(bicubic_weights(torch.arange(2.0), 4)[0], first)
    # The weights of the same size say so too, as they must where a runtime meets the size that it was not exported for.
    torch.testing.assert_close(bicubic_weights(torch.arange(28.0), 28), torch.eye(28))


def test_anomalib_has_it_done_by_its_own_data_modules(tmp_path):
    path = tmp_path / "photo.png"
    photo = Image.fromarray(noise(333, 500))
    photo.save(path)
    transform = CLIPPreProcessor((140, 140)).transform
    (resize,) = extract_transforms_by_type(transform, v2.Resize)

    class DataSet:
        augmentations = None

    MVTecAD._update_subset_augmentations(DataSet, None, transform)
    assert DataSet.augmentations is resize
    # anomalib's reader, its resize of single images, our normalisation of the batch: what the method does to a file.
    batch = DataSet.augmentations(read_anomalib_image(path, as_tensor=True)).unsqueeze(0)
    expected = np.asarray(read_image(path).resize((140, 140), Image.Resampling.BICUBIC)) / 255
    expected = (expected - np.array(OPENAI.mean)) / np.array(OPENAI.std)
    np.testing.assert_allclose(transform(batch)[0].permute(1, 2, 0), expected, atol=1e-5)


@pytest.mark.parametrize("size", [(30, 20), (64, 64), (48, 80)])
def test_products_of_matrices_resize_as_torch_does(size):
    values = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.interpolate(values, size, mode="bilinear", antialias=True)
    torch.testing.assert_close(resize_bilinear(values, size), expected, atol=1e-5, rtol=0)
