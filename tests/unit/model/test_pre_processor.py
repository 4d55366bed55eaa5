"""Pre-processing: the resize that goes into exported files against PIL's and torchvision's, and the transform's round trip."""

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from torchvision.transforms import v2

from anomalib_dpclip.clip.preprocessing import OPENAI, Preprocessing
from anomalib_dpclip.model.pre_processor import CLIP_MEAN, CLIP_STD, CLIPPreProcessor, ExportableResize, bicubic_weights

SIZES = [(28, 28), (14, 9), (100, 41), (29, 27), (300, 3)]


def noise(height: int, width: int) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(height * width))


@pytest.mark.parametrize("size", SIZES)
def test_the_exported_resize_is_torchvisions(size):
    image = noise(*size)
    expected = v2.functional.resize(image, [28, 21], v2.InterpolationMode.BICUBIC, antialias=True)
    torch.testing.assert_close(ExportableResize((28, 21))(image), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_the_exported_resize_is_pils(size):
    image = noise(*size)[0, 0]
    expected = np.array(Image.fromarray(image.numpy()).resize((21, 28), Image.Resampling.BICUBIC))
    torch.testing.assert_close(ExportableResize((28, 21))(image.unsqueeze(0))[0], torch.from_numpy(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_the_exported_bilinear_resize_is_torchvisions(size):
    image = noise(*size)
    expected = v2.functional.resize(image, [28, 21], v2.InterpolationMode.BILINEAR, antialias=True)
    torch.testing.assert_close(ExportableResize((28, 21), "bilinear")(image), expected, atol=1e-5, rtol=0)


def test_weights_by_hand():
    # Two pixels to four: centres 0.25, 0.75, 1.25, 1.75. The first is 0.25 from pixel 0 and 1.25 from pixel 1, where the
    # kernel is 0.8671875 and -0.0703125; normalised by their sum.
    first = torch.tensor([0.8671875, -0.0703125]) / 0.796875
    torch.testing.assert_close(bicubic_weights(torch.arange(2.0), 4)[0], first)


def test_an_image_of_the_right_size_is_left_as_it_is():
    image = noise(28, 21)
    assert torch.equal(ExportableResize((28, 21))(image), image)
    # The weights say so too, as they must where a runtime meets the size that it was not exported for.
    torch.testing.assert_close(bicubic_weights(torch.arange(28.0), 28), torch.eye(28))


def test_statistics_are_clips():
    assert (CLIP_MEAN, CLIP_STD) == (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)


def test_overshoot_is_clamped():
    edge = torch.zeros(1, 3, 40, 40)
    edge[..., 20:] = 1
    processor = CLIPPreProcessor((28, 28))
    black, white = ((level - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD) for level in (0, 1))
    for transform in (processor.transform, processor.export_transform):
        result = transform(edge)
        assert (result >= black[:, None, None] - 1e-6).all()
        assert (result <= white[:, None, None] + 1e-6).all()


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_images_are_prepared_as_the_backbone_was_trained(interpolation):
    given = Preprocessing((0.1, 0.2, 0.3), (0.5, 0.6, 0.7), interpolation)
    processor, image = CLIPPreProcessor((28, 21), given), noise(100, 41)
    mode = v2.InterpolationMode(interpolation)
    resized = v2.functional.resize(image, [28, 21], mode, antialias=True).clamp(0, 1)
    expected = (resized - torch.tensor(given.mean).view(3, 1, 1)) / torch.tensor(given.std).view(3, 1, 1)
    torch.testing.assert_close(processor.transform(image), expected)
    torch.testing.assert_close(processor.export_transform(image), expected, atol=1e-4, rtol=0)
    # Auxiliary images come resized.
    batch = ImageBatch(image=resized.clone())
    processor.on_train_batch_start(None, None, batch, 0)
    torch.testing.assert_close(batch.image, expected)
    restored = CLIPPreProcessor((14, 14))
    restored.load_checkpoint_config(processor.checkpoint_config())
    assert (restored.preprocessing, restored.image_size) == (given, (28, 21))
    torch.testing.assert_close(restored.transform(image), expected)


def test_a_checkpoint_from_before_statistics_were_kept_means_openai_s():
    restored = CLIPPreProcessor((14, 14), Preprocessing((0.1, 0.2, 0.3), (0.5, 0.6, 0.7)))
    restored.load_checkpoint_config({"image_size": [28, 21]})
    assert restored.preprocessing == OPENAI


def test_the_size_survives_a_checkpoint():
    restored = CLIPPreProcessor((14, 14))
    restored.load_checkpoint_config(CLIPPreProcessor((28, 21)).checkpoint_config())
    image = noise(30, 30)
    assert restored.transform(image).shape[-2:] == restored(image).shape[-2:] == (28, 21)
