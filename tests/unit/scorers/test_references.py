import shutil
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from PIL import Image

from anomalib_dpclip import JSONLines, Surfaces
from anomalib_dpclip.data.images import ImageReadError
from anomalib_dpclip.scorers.references import References, choose, image_tensor


@pytest.fixture
def weave(surfaces_root):
    module = Surfaces(root=surfaces_root, category="weave")
    module.setup()
    return module


def test_a_choice_is_repeatable_nested_and_not_the_first_by_name(weave):
    def chosen(k_shot, seed=111):
        return References(k_shot, None, seed).paths(weave)

    assert chosen(2) == chosen(4)[:2]
    assert chosen(4) == chosen(4) != chosen(4, seed=112)
    names = [path.rsplit("/", 1)[1] for path in chosen(8)]
    assert names != sorted(names)
    assert all("/train/good/" in path for path in chosen(8))
    paths = list(weave.train_data.samples.image_path)
    assert choose(paths, 3, 1, "here") == choose(paths[::-1], 3, 1, "here"), "the order of files does not matter"


def test_duplicates_count_once(weave, tmp_path):
    for name in "abc":
        shutil.copy(weave.train_data.samples.image_path.iloc[0], tmp_path / f"{name}.png")
    assert len(References(0, tmp_path, 1).paths(weave)) == 1


def test_bad_sources_are_named(weave, tmp_path):
    with pytest.raises(ValueError, match=r"k_shot 21 is more than the 20 .* training split of Surfaces"):
        References(21, None, 1).paths(weave)
    with pytest.raises(ValueError, match="name the target with --data"):
        References(1, None, 1).paths(None)
    weave.train_data = None
    with pytest.raises(ValueError, match=r"Surfaces has none: give a folder .* --model.few_shot_source"):
        References(1, None, 1).paths(weave)
    for folder, message in ((tmp_path, "no images in"), (tmp_path / "absent", "no folder")):
        with pytest.raises(FileNotFoundError, match=message):
            References(0, folder, 1).paths(weave)


def test_photos_of_several_classes_are_refused(surfaces_root, tmp_path):
    """A memory is of one class: its weights and thresholds would be of whichever class came last."""
    rows = [f'{{"image_path": "{name}/test/good/000.png", "label": 0, "class_name": "{name}"}}' for name in ("weave", "brick")]
    (tmp_path / "both.jsonl").write_text("\n".join(rows))
    target = JSONLines(metadata=tmp_path / "both.jsonl", root=surfaces_root, num_workers=0)
    target.setup()
    with pytest.raises(ValueError, match=r"good photos are of one class, and .* has 2: test them one by one"):
        References(0, surfaces_root / "weave" / "train" / "good", 1).paths(target)


def test_photos_are_read_one_by_one_and_a_damaged_one_is_named(weave, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    paths = [weave.train_data.samples.image_path.iloc[0], tmp_path / "broken.png"]
    images = References(0, None, 1).images(paths, None)
    assert next(images).shape == (3, 140, 140)
    with pytest.raises(ImageReadError, match=r"broken.png"):
        next(images)


def test_another_aspect_is_named(weave, tmp_path, caplog):
    Image.new("RGB", (60, 30)).save(tmp_path / "wide.png")
    (image,) = References(0, None, 1).images([tmp_path / "wide.png"], weave)
    assert "wide.png is 60x30, another aspect" in caplog.text
    assert (image.shape, image.dtype) == ((3, 30, 60), torch.float32)


def test_images_of_any_kind_are_tensors(tmp_path):
    picture, path = Image.new("RGB", (3, 2), (51, 102, 255)), tmp_path / "a.png"
    picture.save(path)
    expected = torch.tensor([0.2, 0.4, 1]).view(3, 1, 1).expand(3, 2, 3)
    given = References(0, None, 1)
    given.set([picture, path, str(path), expected])
    for image in given.images(None, None):
        torch.testing.assert_close(image, expected)
    gone = SimpleNamespace(test_data=SimpleNamespace(samples=pd.DataFrame({"image_path": ["gone.png"]})))
    assert len(list(given.images(None, gone))) == 4, "what is given is not compared with the target's files"
    with pytest.raises(ValueError, match=r"must be an image \(3, H, W\) in \[0, 1\], not a tensor of shape \(2, 2\)"):
        image_tensor(torch.zeros(2, 2))


def test_the_digest_is_of_what_the_images_show(tmp_path):
    def digest(color, name):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4), color).save(tmp_path / name / f"{name}.png")
        return References(0, tmp_path / name, 1).digest(None)

    assert digest("red", "a") == digest("red", "b") != digest("blue", "c")
