"""Pre-processing: CLIP's statistics, values that stay in range, and the transform's round trip."""

import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

from anomalib_dpclip.model.pre_processor import CLIP_MEAN, CLIP_STD, CLIPPreProcessor


def test_statistics_are_clips():
    assert (CLIP_MEAN, CLIP_STD) == (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)


def test_overshoot_is_clipped():
    edge = torch.zeros(1, 3, 40, 40)
    edge[..., 20:] = 1
    processor = CLIPPreProcessor((28, 28))
    black, white = ((level - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD) for level in (0, 1))
    for transform in (processor.transform, processor.export_transform):
        result = transform(edge)
        assert (result >= black[:, None, None] - 1e-6).all()
        assert (result <= white[:, None, None] + 1e-6).all()


def test_the_size_survives_a_checkpoint():
    restored = CLIPPreProcessor((14, 14))
    restored.load_checkpoint_config(CLIPPreProcessor((28, 21)).checkpoint_config())
    image = torch.rand(1, 3, 30, 30)
    assert restored.transform(image).shape[-2:] == restored(image).shape[-2:] == (28, 21)
