"""A pre-processor of one's own: used where it shows whole images as the backbone knows them, refused in words where not."""

import pytest
import torch
from anomalib.pre_processing import PreProcessor
from torchvision.transforms import v2

from anomalib_dpclip.clip.preprocessing import OPENAI, Preprocessing
from anomalib_dpclip.pre_processing.compatibility import require_same_resize, require_whole_images
from anomalib_dpclip.pre_processing.pre_processor import CLIPPreProcessor

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


def test_the_statistics_are_the_backbone_s():
    given = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    require_whole_images(own(v2.Resize(SIZE), v2.Normalize(given.mean, given.std)), SIZE, given)


ELSEWHERE = "something else than the whole image"


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        ([v2.Resize(160), v2.CenterCrop(SIZE), NORMALIZE], ELSEWHERE),
        ([v2.Resize((150, 300)), v2.CenterCrop(SIZE), NORMALIZE], ELSEWHERE),
        ([v2.Pad(20), v2.Resize(SIZE), NORMALIZE], ELSEWHERE),
        ([v2.RandomHorizontalFlip(1), v2.Resize(SIZE), NORMALIZE], ELSEWHERE),
        ([v2.RandomVerticalFlip(1), v2.Resize(SIZE), NORMALIZE], ELSEWHERE),
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
        (
            own(v2.Lambda(lambda image: image), v2.Resize(SIZE), NORMALIZE),
            "another pre-processor, .*give the same one again",
        ),
        (own(v2.Resize((70, 140)), NORMALIZE), r"gives images of \(70, 140\)"),
    ):
        with pytest.raises(ValueError, match=message):
            CLIPPreProcessor(SIZE).load_checkpoint_config(other.checkpoint_config())
