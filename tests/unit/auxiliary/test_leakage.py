"""Guards against testing on what was learned from."""

import logging
import shutil
from types import SimpleNamespace

import pandas as pd
import pytest
from anomalib.data import Folder
from PIL import Image

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
    require_disjoint(frame(learned), target(tested, tested))


def test_nothing_is_tested():
    require_disjoint(frame([]), target())
    require_disjoint(frame([]), None)
    require_disjoint(frame([]), SimpleNamespace())  # a data module before its setup


@pytest.mark.parametrize("split", ["test", "validation"])
def test_the_same_path(tmp_path, split):
    paths = images(tmp_path / "a", one=b"11", two=b"222")
    with pytest.raises(ValueError, match=rf"{paths[1]} is to be tested on and, as {paths[1]}, learned from.*--data"):
        require_disjoint(frame(paths), target(**{split: paths[1:]}))


def test_the_same_file_under_other_names(tmp_path):
    [learned] = images(tmp_path / "a", one=b"11")
    linked, detour = tmp_path / "link.png", tmp_path / "a" / ".." / "a" / "one.png"
    linked.symlink_to(learned)
    for path in (linked, detour):
        with pytest.raises(ValueError, match=f"as {learned}, learned from"):
            require_disjoint(frame([learned]), target([str(path)]))


def test_a_copy(tmp_path):
    learned = images(tmp_path / "a", one=b"11", two=b"22")
    copy = shutil.copy(learned[1], tmp_path / "renamed.png")
    with pytest.raises(ValueError, match=f"renamed.png is to be tested on and, as {learned[1]}, learned from"):
        require_disjoint(frame(learned), target([str(copy)]))


def test_good_photos_are_not_judged(tmp_path):
    """Neither in a test nor in a prediction, whose images need not all be there."""
    good = images(tmp_path / "good", one=b"11", two=b"222")
    others = images(tmp_path / "others", one=b"1x")
    gone = str(tmp_path / "gone.png")
    require_untested(good, [*others, gone])
    require_untested([*good, gone], others)
    copy = shutil.copy(good[1], tmp_path / "renamed.png")
    for judged in (good[1], str(copy)):
        with pytest.raises(
            ValueError, match=rf"{judged} is to be scored and, as {good[1]}, a photo .* --model.few_shot_source"
        ):
            require_untested(good, [*others, judged])


def test_a_folder_that_tests_on_some_of_its_good_photos(tmp_path):
    """anomalib samples them from ``normal_dir``, where there is no ``normal_test_dir``."""
    for name, count in (("good", 5), ("bad", 1)):
        (tmp_path / name).mkdir()
        for index in range(count):
            Image.new("L", (4, 4), 9 * count + index).save(tmp_path / name / f"{index}.png")
    parts = Folder("parts", "good", tmp_path, abnormal_dir="bad", seed=1, num_workers=0)
    parts.setup()
    source = sorted(map(str, (tmp_path / "good").iterdir()))
    with pytest.raises(ValueError, match="a Folder without normal_test_dir"):
        require_untested(source, image_paths(parts.test_dataloader().dataset))
    require_untested(list(parts.train_data.samples.image_path), image_paths(parts.test_data))


@pytest.mark.parametrize(
    ("learned_from", "name", "category", "warns"),
    [
        (["VisA/candle"], "Visa", "candle", True),
        (["MVTecAD/dark bottle"], "MVTec", "bottle", True),
        (["MVTecAD/dark bottle"], "MVTec", "cable", False),
        (["VisA/capsules"], "MVTecAD", "capsules", False),
        (["Surfaces/brick"], "Surfaces", "brick", True),
        (["no data set"], "Folder", None, False),
        ([], "Visa", "candle", False),
    ],
)
def test_the_warning(caplog, learned_from, name, category, warns):
    with caplog.at_level(logging.WARNING):
        warn_if_learned_from(learned_from, target(name=name, category=category))
    assert ("this is no zero-shot result" in caplog.text) is warns
