"""`dpclip metadata --check` finds everything that is wrong with a list."""

import numpy as np
import pytest
from PIL import Image
from tests.metadata_lines import write_lines
from tests.pictures import mask, picture

from anomalib_dpclip.data.listing.command import check_metadata, metadata


@pytest.fixture
def root(tmp_path):
    for value, name in enumerate(("good", "bad", "a", "b", "c", "d"), start=1):
        picture(tmp_path / f"{name}.png", value=value)
    mask(tmp_path / "mask.png")
    return tmp_path


def check(root, *rows):
    lines = [row if isinstance(row, str) else {"label": 1, "class_name": "c"} | row for row in rows]
    return [tuple(problem) for problem in check_metadata(write_lines(root / "x.jsonl", lines), root)]


@pytest.mark.parametrize("masked", [{}, {"mask_path": "mask.png"}])
def test_nothing_wrong(root, masked):
    assert check(root, {"image_path": "good.png", "label": 0}, {"image_path": "bad.png"} | masked) == []


def test_all_problems_at_once(root):
    mask(root / "empty_mask.png", value=0)
    mask(root / "small_mask.png", size=(4, 3))
    (root / "cut.png").write_bytes((root / "bad.png").read_bytes()[:50])
    (root / "nothing.png").touch()
    found = check(
        root,
        {"image_path": "good.png", "label": 0},
        {"image_path": "missing.png", "mask_path": "missing_mask.png"},
        '{"image_path": \n',
        {"image_path": "a.png", "mask_path": "empty_mask.png"},
        {"image_path": "b.png", "mask_path": "small_mask.png"},
        {"image_path": "cut.png", "mask_path": "mask.png"},
        {"image_path": "./good.png", "label": 0},
        {"image_path": "c.png", "label": 0, "mask_path": "mask.png"},
        {"image_path": "d.png", "mask_path": "nothing.png"},
    )
    expected = [
        (2, "there is no file 'missing.png'"),
        (2, "there is no file 'missing_mask.png'"),
        (3, "not valid JSON"),
        (4, "mask empty_mask.png is empty, but its image is labelled anomalous"),
        (5, "small_mask.png is 4x3, but its image b.png is 16x12"),
        (6, "cut.png"),
        (7, "./good.png is listed in line 1 too"),
        (8, "mask mask.png is not empty, but its image is labelled normal"),
        (9, "nothing.png: empty, damaged or none of the formats"),
    ]
    for (line, message, is_error), (expected_line, words) in zip(found, expected, strict=True):
        assert is_error
        assert line == expected_line
        assert words in message.replace(f"{root}/", "")


def test_what_is_only_worth_a_look(root):
    Image.fromarray(np.uint16([[0, 4095]])).save(root / "16bit.png")
    (root / "copy.png").write_bytes((root / "good.png").read_bytes())
    noisy = np.zeros((12, 16), np.uint8)
    noisy[:2] = [[1], [254]]
    Image.fromarray(noisy).save(root / "noisy.png")
    unmasked = "a.png is anomalous and has no mask, although others have one: pixel metrics leave it out"
    assert check(
        root,
        {"image_path": "16bit.png", "label": 0},
        {"image_path": "good.png", "label": 0},
        {"image_path": "copy.png", "label": 0},
        {"image_path": "bad.png", "mask_path": "noisy.png"},
        {"image_path": "a.png"},
    ) == [
        (1, "16bit.png has 16 bits and values up to 4095: 65535 is shown as white", False),
        (3, "copy.png is the same picture as good.png", False),
        (4, "mask noisy.png has 3 grey values: all but 0 are anomalous", False),
        (5, unmasked, False),
    ]


def test_an_empty_file(root):
    assert check(root) == [(1, "the file lists no images", True)]


def test_the_command_prints_lines_and_returns_a_status(root, capsys):
    line = {"image_path": "good.png", "label": 0, "class_name": "c"}
    assert metadata(root, check=write_lines(root / "x.jsonl", [line])) == 0
    path = write_lines(root / "x.jsonl", [line | {"image_path": "gone.png"}])
    assert metadata(root, check=path) == 1
    captured = capsys.readouterr()
    assert captured.out == f"{path}:1: error: there is no file 'gone.png' in the root {root}\n"
    assert captured.err.rstrip().endswith(f"{path}: 1 errors, 0 notes")
