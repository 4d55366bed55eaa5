"""Draws of good images: nested, repeatable, without copies, and given by a file."""

import json

import pytest

from anomalib_dpclip.benchmark.draws import Draws

IMAGES = {f"train/{number}.png": f"digest {number}" for number in range(10)}


def test_a_smaller_choice_is_part_of_a_larger_one_and_draws_differ():
    draws = Draws(2)
    assert draws.count("S/c") == 2
    four, two = (draws.choose("S/c", IMAGES, 0, k) for k in (4, 2))
    assert four[:2] == two
    assert len(set(four)) == 4
    assert set(draws.choose("S/c", IMAGES, 1, 10)) == set(IMAGES)
    assert draws.choose("S/c", IMAGES, 1, 4) != four
    assert Draws(2).choose("S/c", dict(reversed(IMAGES.items())), 0, 4) == four


def test_a_copy_counts_once():
    copies = {**IMAGES, "train/copy.png": "digest 3"}
    assert len(Draws(1).choose("S/c", copies, 0, 10)) == 10
    with pytest.raises(ValueError, match="k_shot 11 is more than the 10 different normal images in the training split of S/c"):
        Draws(1).choose("S/c", copies, 0, 11)


def test_what_was_drawn_can_be_given(tmp_path):
    draws = Draws(2)
    chosen = [draws.choose("S/c", IMAGES, draw, k) for draw, k in ((0, 4), (1, 2), (0, 3))]
    draws.write(tmp_path / "draws.json")
    assert json.loads((tmp_path / "draws.json").read_text()) == {"S/c": [list(chosen[0]), list(chosen[1])]}
    given = Draws(tmp_path / "draws.json")
    assert given.count("S/c") == 2
    assert given.choose("S/c", IMAGES, 0, 3) == chosen[2]
    assert given.choose("S/c", IMAGES, 1, 2) == chosen[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"S/c": [["gone.png"]]}, r"draw 0 of S/c in .*d\.json: gone\.png is no normal training image"),
        ({"S/c": [["train/1.png"]]}, r"k_shot 2 is more than the 1 different normal images in draw 0 of S/c"),
        ({"S/other": [[]]}, r"d\.json: no draws of 'S/c'; it has S/other"),
        ([["train/1.png"]], r"d\.json: draws must be JSON such as"),
        ({"S/c": [[1]]}, r"d\.json: draws must be JSON such as"),
    ],
)
def test_files_that_do_not_fit(tmp_path, content, message):
    (tmp_path / "d.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        first_two(str(tmp_path / "d.json"))


def first_two(path):
    draws = Draws(path)
    return draws.choose("S/c", IMAGES, draws.count("S/c") - 1, 2)


def test_a_wrong_number_or_file():
    for number in (0, True, None):
        with pytest.raises(ValueError, match="draws must be a number from 1"):
            Draws(number)
    with pytest.raises(FileNotFoundError, match=r"no file nowhere\.json"):
        Draws("nowhere.json")
