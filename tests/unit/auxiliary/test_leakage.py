"""Guards against testing on what was learned from."""

import logging
import shutil
from types import SimpleNamespace

import pandas as pd
import pytest

from anomalib_dpclip.auxiliary.leakage import require_disjoint, warn_if_learned_from


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
