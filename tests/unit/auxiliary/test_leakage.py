import shutil
from types import SimpleNamespace

import pandas as pd
import pytest
from anomalib.data import Folder
from tests.pictures import picture

from anomalib_dpclip.auxiliary.leakage import require_disjoint, require_untested, warn_if_learned_from
from anomalib_dpclip.data.image_checks import image_paths


def images(folder, **contents):
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / f"{name}.png").write_bytes(content)
    return [str(folder / f"{name}.png") for name in contents]


def frame(paths):
    return pd.DataFrame({"image_path": paths})


def target(test=(), validation=None, **attributes):
    val_data = None if validation is None else SimpleNamespace(samples=frame(validation))
    return SimpleNamespace(test_data=SimpleNamespace(samples=frame(list(test))), val_data=val_data, **attributes)


def test_different_images_pass(tmp_path):
    learned = images(tmp_path / "a", one=b"11", two=b"222")
    tested = images(tmp_path / "b", one=b"1x", three=b"3333")  # the same name and the same size are no leak
    for each in (target(tested, tested), target(), None, SimpleNamespace()):  # the last before its setup
        assert require_disjoint(frame(learned), each) is None


@pytest.mark.parametrize("split", ["test", "validation"])
@pytest.mark.parametrize("kind", ["itself", "link", "detour", "copy"])
def test_one_image_in_both_places(tmp_path, split, kind):
    learned = images(tmp_path / "a", one=b"11", two=b"22")
    tested = {"itself": learned[1], "detour": str(tmp_path / "a" / ".." / "a" / "two.png")}.get(kind, str(tmp_path / "b.png"))
    if kind == "link":
        (tmp_path / "b.png").symlink_to(learned[1])
    elif kind == "copy":
        shutil.copy(learned[1], tested)
    with pytest.raises(ValueError, match=rf"{tested} is to be tested on and, as {learned[1]}, learned from.*--data"):
        require_disjoint(frame(learned), target(**{split: [tested]}))


def test_good_photos_are_not_scored(tmp_path):
    good = images(tmp_path / "good", one=b"11", two=b"222")
    others = images(tmp_path / "others", one=b"1x")
    gone = str(tmp_path / "gone.png")
    require_untested(good, [*others, gone])
    require_untested([*good, gone], others)
    for scored in (good[1], str(shutil.copy(good[1], tmp_path / "renamed.png"))):
        message = rf"{scored} is to be scored and, as {good[1]}, a photo .* --model.few_shot_source"
        with pytest.raises(ValueError, match=message):
            require_untested(good, [*others, scored])


def test_a_folder_that_tests_on_some_of_its_good_photos(tmp_path):
    """anomalib samples them from ``normal_dir``, where there is no ``normal_test_dir``."""
    good = [str(picture(tmp_path / "good" / f"{index}.png", value=index)) for index in range(5)]
    picture(tmp_path / "bad" / "0.png", value=9)
    parts = Folder("parts", "good", tmp_path, abnormal_dir="bad", seed=1, num_workers=0)
    parts.setup()
    with pytest.raises(ValueError, match="a Folder without normal_test_dir"):
        require_untested(good, image_paths(parts.test_dataloader().dataset))
    require_untested(list(parts.train_data.samples.image_path), image_paths(parts.test_data))


@pytest.mark.parametrize(
    ("learned_from", "name", "category", "warns"),
    [
        (["VisA/candle"], "Visa", "candle", True),
        (["MVTecAD/dark bottle"], "MVTec", "bottle", True),
        (["MVTecAD/dark bottle"], "MVTec", "cable", False),
        (["VisA/capsules"], "MVTecAD", "capsules", False),
        (["no data set"], "Folder", None, False),
        ([], "Visa", "candle", False),
    ],
)
def test_the_warning(caplog, learned_from, name, category, warns):
    warn_if_learned_from(learned_from, target(name=name, category=category))
    assert ("this is no zero-shot result" in caplog.text) is warns
