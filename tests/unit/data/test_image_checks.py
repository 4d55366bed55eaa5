"""What is looked at before a run: unreadable files, and files that anomalib's reader sees otherwise."""

import re

import numpy as np
import pytest
import torch
from anomalib.data import Folder, PredictDataset
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image
from tests.metadata_lines import write_lines
from tests.pictures import turned
from tests.unit.data.test_json_lines import labelled

from anomalib_dpclip.data.image_checks import (
    image_paths,
    require_evaluation_images,
    require_images,
    require_readable,
    require_sound_images,
)
from anomalib_dpclip.data.images import ImageReadError
from anomalib_dpclip.data.json_lines import JSONLines
from anomalib_dpclip.data.photos import Photos

GREY = np.random.default_rng(0).integers(0, 256, (12, 10), dtype=np.uint8)


def save(path, values=GREY, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)
    return str(path)


def clear_corner(opacity):
    rgba = np.dstack([GREY, GREY, GREY, np.full_like(GREY, 255)])
    rgba[:3, :3, 3] = opacity
    return rgba


def folder(root, **arguments):
    module = Folder("parts", "good", root, abnormal_dir="bad", val_split_mode="same_as_test", **arguments)
    module.setup()
    return module.test_data


def listed(root, name, **line):
    return write_lines(root / "list.jsonl", [{"image_path": name, "label": 0, "class_name": "part"} | line])


@pytest.fixture
def root(tmp_path):
    for name in ("good/0.png", "good/1.png", "bad/0.png"):
        save(tmp_path / name)
    return tmp_path


def test_plain_images_pass(root):
    rng = np.random.default_rng(1)
    save(root / "bad" / "1.jpg", rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), exif=turned(1))
    save(root / "bad" / "opaque.png", clear_corner(255))
    save(root / "bad" / "bilevel.png", GREY > 99)
    Image.new("P", (5, 4)).save(root / "bad" / "palette.png")
    Image.new("CMYK", (5, 4)).save(root / "bad" / "cmyk.jpg")
    for dataset in (folder(root), PredictDataset(root), torch.utils.data.TensorDataset(torch.zeros(1))):
        assert require_sound_images(dataset) is None


@pytest.mark.parametrize(
    ("name", "values", "options", "found"),
    [
        ("deep.png", np.uint16(GREY) * 257, {}, "has more than 8 bits"),
        ("float.tif", np.float32(GREY) / 255, {}, "has more than 8 bits"),
        ("clear.png", clear_corner(0), {}, "is transparent"),
        ("turned.jpg", GREY, {"exif": turned(6)}, "is turned by its EXIF orientation"),
    ],
)
def test_what_anomalib_would_read_otherwise_is_refused_by_name(root, name, values, options, found):
    path = save(root / "bad" / name, values, **options)
    for dataset in (folder(root), PredictDataset(root)):
        with pytest.raises(ImageReadError, match=rf"^{re.escape(path)} {found}.*--data JSONLines.*--data Photos"):
            require_sound_images(dataset)
    # Where this package reads there is one reader: what is calibrated through one holds for the other.
    photos = Photos(root / "bad", num_workers=0).predict_dataloader().dataset
    by_list = labelled(listed(root, f"bad/{name}"), root)
    require_sound_images(photos)
    require_sound_images(by_list)
    assert torch.equal(photos[1].image, by_list[0].image)


@pytest.mark.parametrize("opacity", [0, 255])
def test_masks_that_anomalib_would_read_otherwise(root, opacity):
    save(root / "masks" / "0.png", clear_corner(opacity))
    if opacity:
        require_sound_images(folder(root, mask_dir="masks"))
        save(root / "masks" / "0.png", np.dstack([GREY * 0, GREY * 0, GREY // 255 + 1]))  # a blue that its grey rounds away
    with pytest.raises(ImageReadError, match=r"masks/0\.png is (transparent|a mask in dark colours)"):
        require_sound_images(folder(root, mask_dir="masks"))


def test_all_files_that_cannot_be_read_are_named_at_once(root):
    faulty = [root / "bad" / "empty.png", root / "bad" / "text.png"]
    for path in faulty:
        path.write_text("" if path.stem == "empty" else "no image")
    with pytest.raises(ImageReadError, match=r"(?s)^2 images or masks cannot be used.*empty\.png.*text\.png"):
        require_sound_images(folder(root))
    for path in faulty:
        path.unlink()
    mask = save(root / "masks" / "0.png", GREY.T)
    with pytest.raises(ImageReadError, match=rf"mask {mask} is 12x10, but its image .*bad/0\.png is 10x12"):
        require_sound_images(folder(root, mask_dir="masks"))
    with pytest.raises(ImageReadError, match=r"(?s)^12 images.*gone0\.png.*gone9\.png\n  and 2 more$"):
        require_readable([str(root / f"gone{index}.png") for index in range(12)])


def test_the_beginning_of_a_file_is_enough(root):
    """A whole list is looked at before the first step, so nothing may be decoded."""
    path = root / "good" / "0.png"
    path.write_bytes(path.read_bytes()[:80])
    require_readable([str(path)])
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ImageReadError, match=r"^1 images"):
        require_readable([str(path)])


def test_images_of_data_sets(root):
    photos = Photos(root, num_workers=0).predict_dataloader().dataset
    assert image_paths(photos) == [str(root / name) for name in ("bad/0.png", "good/0.png", "good/1.png")]
    assert image_paths(PredictDataset(root / "bad")) == [str(root / "bad" / "0.png")]
    assert str(root / "bad" / "0.png") in image_paths(folder(root))
    assert image_paths(torch.utils.data.TensorDataset(torch.zeros(1))) == []


def test_good_photos_alone_are_nothing_to_test_on(root):
    for mode in ("from_test", "same_as_test", "none"):
        target = Folder("parts", "good", root, test_split_mode="none", val_split_mode=mode)
        with pytest.raises(ValueError, match=r"^parts has good photos only.*dpclip predict --good good PHOTOS"):
            require_evaluation_images(target)
    anomalous = Folder("parts", "good", root, abnormal_dir="bad", test_split_mode="none")
    for target in (None, Photos(root), Folder("parts", "good", root), anomalous):
        assert require_evaluation_images(target) is None


def test_what_leaves_nothing_to_validate_test_or_predict_says_so(root):
    good = JSONLines(listed(root, "good/0.png", split="train"), root, num_workers=0)
    good.setup()
    for stage in (TrainerFn.VALIDATING, "test", "predict"):  # Lightning passes a member, which is a text of another name
        message = rf"has no image to {TrainerFn(stage).value}: .*--data.val_split_mode same_as_test.*--good"
        with pytest.raises(ValueError, match=message):
            require_images(good, stage)
    tested = JSONLines(listed(root, "good/0.png"), root, num_workers=0)
    tested.setup()
    for target, stage in ((good, "fit"), (None, "test"), (Photos(root), "predict"), (tested, "test")):
        assert require_images(target, stage) is None


def test_a_folder_of_which_only_some_photos_have_masks(root):
    save(root / "bad" / "1.png")
    save(root / "masks" / "1.png")
    target = Folder("parts", "good", root, abnormal_dir="bad", mask_dir="masks")
    with pytest.raises(ValueError, match=r"^the data set parts in .* Else list them with `dpclip metadata`.*--data JSONLines"):
        require_evaluation_images(target)
    save(root / "masks" / "0.png")
    assert require_evaluation_images(target) is None
