"""Pre-processing: CLIP's statistics, values that stay in range, and the transform's round trip."""

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.pre_processing import PreProcessor
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from torchvision.transforms import v2

from anomalib_dpclip.clip.pretraining import OPENAI, Preprocessing
from anomalib_dpclip.pre_processing.pre_processor import CLIPPreProcessor, require_same_resize, require_whole_images


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


NORMALIZE = v2.Normalize(OPENAI.mean, OPENAI.std)
SIZE = (140, 280)


def own(*transforms):
    return PreProcessor(v2.Compose(list(transforms)))


@pytest.mark.parametrize(
    "pre_processor",
    [
        own(v2.Resize(SIZE), NORMALIZE),
        own(v2.Resize(SIZE, v2.InterpolationMode.NEAREST), v2.Grayscale(3), NORMALIZE),
        CLIPPreProcessor(SIZE),
        PreProcessor(None),
        None,
    ],
    ids=["bilinear", "grey", "default", "prepared", "none"],
)
def test_whole_images_are_welcome(pre_processor):
    require_whole_images(pre_processor, SIZE, OPENAI)
    given = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    require_whole_images(own(v2.Resize(SIZE), v2.Normalize(given.mean, given.std)), SIZE, given)


ELSEWHERE = "something else than the whole image"


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        ([v2.Resize(160), v2.CenterCrop(SIZE), NORMALIZE], ELSEWHERE),
        ([v2.Pad(20), v2.Resize(SIZE), NORMALIZE], ELSEWHERE),
        ([v2.RandomHorizontalFlip(1), v2.Resize(SIZE), NORMALIZE], ELSEWHERE),
        ([v2.Resize(SIZE)], r"end it with Normalize\(mean=\(0\.48145466"),
        ([v2.Resize(SIZE), v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))], "does not normalise as the backbone"),
        ([v2.Resize((140, 140)), NORMALIZE], r"gives images of \(140, 140\), the model takes \(140, 280\)"),
    ],
)
def test_others_are_refused_in_words(transforms, message):
    with pytest.raises(ValueError, match=message):
        require_whole_images(own(*transforms), SIZE, OPENAI)


def test_a_file_resizes_as_the_model_or_takes_images_of_its_size():
    for pre_processor in (CLIPPreProcessor(SIZE), None, PreProcessor(None)):
        require_same_resize(pre_processor, (333, 500))
    antialiased = own(v2.Resize(SIZE, antialias=True), NORMALIZE)
    with pytest.raises(ValueError, match=r"otherwise in an exported file.*input_size"):
        require_same_resize(antialiased, (333, 500))
    require_same_resize(antialiased, SIZE)


def test_a_checkpoint_s_own_transforms_come_back_or_are_asked_for():
    saved, loaded = own(v2.Resize(SIZE), NORMALIZE), CLIPPreProcessor(SIZE)
    loaded.load_checkpoint_config(saved.checkpoint_config())
    image = torch.rand(1, 3, 200, 100)
    assert torch.equal(loaded.transform(image), saved.transform(image))
    assert torch.equal(loaded(image), saved(image))
    for other, message in (
        (own(v2.Lambda(lambda image: image), v2.Resize(SIZE), NORMALIZE), "another pre-processor, .*give the same one again"),
        (own(v2.Resize((70, 140)), NORMALIZE), r"gives images of \(70, 140\)"),
    ):
        with pytest.raises(ValueError, match=message):
            CLIPPreProcessor(SIZE).load_checkpoint_config(other.checkpoint_config())
