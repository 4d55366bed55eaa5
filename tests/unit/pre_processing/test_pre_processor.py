"""Pre-processing: CLIP's statistics, values that stay in range, and the transform's round trip."""

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image

from anomalib_dpclip.clip.preprocessing import OPENAI, Preprocessing
from anomalib_dpclip.pre_processing.pre_processor import CLIPPreProcessor


def test_overshoot_is_clipped_to_clip_s_black_and_white():
    assert (OPENAI.mean, OPENAI.std) == (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
    edge = torch.zeros(1, 3, 40, 40)
    edge[..., 20:] = 1
    processor = CLIPPreProcessor((28, 28))
    black, white = ((level - torch.tensor(OPENAI.mean)) / torch.tensor(OPENAI.std) for level in (0, 1))
    for transform in (processor.transform, processor.export_transform):
        result = transform(edge)
        assert (result >= black[:, None, None] - 1e-6).all()
        assert (result <= white[:, None, None] + 1e-6).all()


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_images_are_prepared_as_the_backbone_was_trained(interpolation):
    given = Preprocessing((0.1, 0.2, 0.3), (0.5, 0.6, 0.7), interpolation)
    processor = CLIPPreProcessor((28, 21), given)
    pixels = np.random.default_rng(0).integers(0, 256, (41, 100, 3), dtype=np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0) / 255
    pillow = Image.fromarray(pixels).resize((21, 28), Image.Resampling[interpolation.upper()])
    resized = torch.from_numpy(np.array(pillow)).permute(2, 0, 1).unsqueeze(0) / 255
    expected = (resized - torch.tensor(given.mean).view(3, 1, 1)) / torch.tensor(given.std).view(3, 1, 1)
    torch.testing.assert_close(processor.transform(image), expected)
    # Pillow's fixed-point weights now and then round the other way.
    torch.testing.assert_close(processor.export_transform(image), expected, atol=2 / 255 / min(given.std), rtol=0)
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
    image = torch.rand(1, 3, 30, 30)
    assert restored.transform(image).shape[-2:] == restored(image).shape[-2:] == (28, 21)
