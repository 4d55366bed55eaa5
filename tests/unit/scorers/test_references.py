"""Which good images are taken."""

import shutil

import pytest
import torch
from PIL import Image

from anomalib_dpclip import JSONLines, Surfaces
from anomalib_dpclip.data.images import ImageReadError
from anomalib_dpclip.scorers.references import (
    References,
    choose,
    folder_references,
    image_tensor,
    read_references,
    training_references,
)


@pytest.fixture
def weave(surfaces_root):
    module = Surfaces(root=surfaces_root, category="weave")
    module.setup()
    return module


def test_a_choice_is_repeatable_nested_and_not_the_first_by_name(weave):
    four = training_references(weave, 4, 111)
    assert training_references(weave, 2, 111) == four[:2]
    assert training_references(weave, 4, 111) == four != training_references(weave, 4, 112)
    names = [path.rsplit("/", 1)[1] for path in training_references(weave, 8, 111)]
    assert names != sorted(names)
    assert all("/train/good/" in path for path in four)
    paths = list(weave.train_data.samples.image_path)
    assert choose(paths, 3, 1, "here") == choose(paths[::-1], 3, 1, "here"), "the order of files does not matter"


def test_duplicates_count_once(weave, tmp_path):
    path = weave.train_data.samples.image_path.iloc[0]
    for name in "abc":
        shutil.copy(path, tmp_path / f"{name}.png")
    assert len(folder_references(tmp_path, 0, 1)) == 1
    with pytest.raises(ValueError, match="k_shot 2 is more than the 1 different"):
        folder_references(tmp_path, 2, 1)


def test_bad_sources_are_named(weave, tmp_path):
    with pytest.raises(ValueError, match=r"k_shot 21 is more than the 20 .* training split of Surfaces"):
        training_references(weave, 21, 1)
    with pytest.raises(ValueError, match="name the target with --data"):
        training_references(None, 1, 1)
    weave.train_data = None
    with pytest.raises(ValueError, match=r"Surfaces has none: give a folder .* --model.few_shot_source"):
        training_references(weave, 1, 1)
    with pytest.raises(FileNotFoundError, match="no images in"):
        folder_references(tmp_path, 0, 1)
    with pytest.raises(FileNotFoundError, match="no folder"):
        folder_references(tmp_path / "absent", 0, 1)


def test_photos_of_several_classes_are_refused(surfaces_root, tmp_path):
    """A memory is of one class: its weights and thresholds would be of whichever class came last."""
    rows = [f'{{"image_path": "{name}/test/good/000.png", "label": 0, "class_name": "{name}"}}' for name in ("weave", "brick")]
    (tmp_path / "both.jsonl").write_text("\n".join(rows))
    target = JSONLines(metadata=tmp_path / "both.jsonl", root=surfaces_root, num_workers=0)
    target.setup()
    with pytest.raises(ValueError, match=r"good photos are of one class, and .* has 2: test them one by one"):
        References(0, surfaces_root / "weave" / "train" / "good", 1).paths(target)


def test_photos_are_read_one_by_one_and_a_damaged_one_is_named(weave, tmp_path):
    good = weave.train_data.samples.image_path.iloc[0]
    (tmp_path / "broken.png").write_bytes(b"no image")
    images = read_references([good, tmp_path / "broken.png"])
    assert next(images).shape == (3, 140, 140)
    with pytest.raises(ImageReadError, match=r"broken.png"):
        next(images)


def test_another_aspect_is_named(weave, tmp_path, caplog):
    Image.new("RGB", (60, 30)).save(tmp_path / "wide.png")
    (image,) = read_references([tmp_path / "wide.png"], weave)
    assert "wide.png is 60x30, another aspect" in caplog.text
    assert image.shape == (3, 30, 60)
    assert image.dtype == torch.float32


def test_images_of_any_kind_are_tensors(tmp_path):
    picture = Image.new("RGB", (3, 2), (51, 102, 255))
    picture.save(tmp_path / "a.png")
    expected = torch.tensor([0.2, 0.4, 1]).view(3, 1, 1).expand(3, 2, 3)
    for image in (picture, tmp_path / "a.png", str(tmp_path / "a.png"), expected):
        torch.testing.assert_close(image_tensor(image), expected)
    with pytest.raises(ValueError, match=r"must be an image \(3, H, W\) in \[0, 1\], not a tensor of shape \(2, 2\)"):
        image_tensor(torch.zeros(2, 2))


def test_the_digest_is_of_what_the_images_show(tmp_path):
    def digest(color, name):
        Image.new("RGB", (4, 4), color).save(tmp_path / name)
        folder = tmp_path / f"folder-{name}"
        folder.mkdir()
        (tmp_path / name).rename(folder / name)
        return References(0, folder, 1).digest(None)

    assert digest("red", "a.png") == digest("red", "b.png") != digest("blue", "c.png")
