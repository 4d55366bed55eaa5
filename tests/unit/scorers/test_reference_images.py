import shutil

import pytest
import torch
from PIL import Image

from anomalib_dpclip import Surfaces
from anomalib_dpclip.data.images import ImageReadError
from anomalib_dpclip.scorers.references import (
    choose,
    folder_references,
    read_references,
    require_untested,
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


def test_the_order_of_files_does_not_matter(weave):
    paths = list(weave.train_data.samples.image_path)
    assert choose(paths, 3, 1, "here") == choose(paths[::-1], 3, 1, "here")


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


def test_a_damaged_photo_is_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ImageReadError, match=r"broken.png"):
        read_references(folder_references(tmp_path, 0, 1))


def test_another_aspect_is_told_of(weave, tmp_path, caplog):
    Image.new("RGB", (60, 30)).save(tmp_path / "wide.png")
    images = read_references([tmp_path / "wide.png"], weave)
    assert "wide.png is 60x30, another aspect" in caplog.text
    assert images[0].shape == (3, 30, 60)
    assert images[0].dtype == torch.float32


@pytest.mark.parametrize("copied", [False, True])
def test_no_reference_may_be_tested_on(weave, tmp_path, copied):
    path = weave.test_data.samples.image_path.iloc[3]
    require_untested(list(weave.train_data.samples.image_path), weave)
    reference = shutil.copy(path, tmp_path / "copy.png") if copied else path
    with pytest.raises(ValueError, match=r"is to be tested on and, as .*few_shot_source"):
        require_untested([str(reference)], weave)
