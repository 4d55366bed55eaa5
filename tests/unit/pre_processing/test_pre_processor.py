"""Pre-processing: CLIP's statistics, values in range, the transform's round trip, and resizing against Pillow's own."""

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch, MVTecAD
from anomalib.data.transforms.utils import extract_transforms_by_type
from anomalib.data.utils import read_image as read_anomalib_image
from anomalib.pre_processing import PreProcessor
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from torchvision.transforms import v2
from torchvision.tv_tensors import Image as ImageTensor
from torchvision.tv_tensors import Mask

from anomalib_dpclip.clip.pretraining import OPENAI, Preprocessing
from anomalib_dpclip.data.images import read_image
from anomalib_dpclip.pre_processing.pre_processor import CLIPPreProcessor, require_same_resize, require_whole_images
from anomalib_dpclip.pre_processing.resize import EightBitResize, ExportableResize, bicubic_weights, resize_bilinear


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


def test_images_of_the_right_size_are_left_as_they_are():
    image = torch.rand(2, 3, 28, 21)
    assert torch.equal(ExportableResize((28, 21))(image), image)
    assert torch.equal(EightBitResize((28, 21))(image), image)
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
