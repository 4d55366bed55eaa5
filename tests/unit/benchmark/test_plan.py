import json
from dataclasses import replace

import pytest
from PIL import Image
from tests.unit.benchmark.tree import mvtec_tree

from anomalib_dpclip.benchmark.config import Job
from anomalib_dpclip.benchmark.draws import Draws
from anomalib_dpclip.benchmark.plan import check_weights, digest_of, plan


@pytest.fixture
def job(tmp_path):
    root = mvtec_tree(tmp_path / "MVTecAD")
    data = {"class_path": "MVTecAD", "init_args": {"root": str(root), "category": "tile"}}
    return Job("Patchcore", "MVTecAD", "tile", "cpu", 1, {"class_path": "Patchcore"}, data, {})


def planned(*jobs, draws=1):
    digest_of.cache_clear()  # a new process
    return plan(jobs, Draws(draws))


@pytest.mark.parametrize("name", ["train/good/000.png", "test/good/001.png", "ground_truth/broken/002_mask.png"])
def test_any_file_of_the_data_set_belongs_to_the_key(tmp_path, job, name):
    (before,) = planned(job)
    assert planned(job)[0].key == before.key
    file = tmp_path / "MVTecAD/tile" / name
    Image.new("RGB", (40, 40)).save(tmp_path / "MVTecAD/bottle/test/good/009.png")
    assert planned(job)[0].key == before.key
    file.write_bytes(file.read_bytes() + b"more")  # after its end: as the same image
    assert planned(job)[0].key != before.key


def test_contents_of_weights_and_folders_of_photos_belong_to_the_key(tmp_path, job):
    weights, photos = tmp_path / "weights.bin", tmp_path / "photos"
    weights.write_bytes(b"one")
    photos.mkdir()
    model = {"class_path": "Patchcore", "init_args": {"weights": str(weights), "few_shot_source": str(photos)}}
    keys = [planned(replace(job, model=model))[0].key]
    weights.write_bytes(b"two")
    keys.append(planned(replace(job, model=model))[0].key)
    Image.new("RGB", (4, 4)).save(photos / "a.png")
    keys.append(planned(replace(job, model=model))[0].key)
    assert len(set(keys)) == 3


def test_what_is_learned_from_belongs_to_the_training_and_the_key(tmp_path, job):
    root = str(tmp_path / "MVTecAD")
    model = {"class_path": "DPCLIP", "init_args": {"auxiliary": "MVTecAD/bottle", "training": {"auxiliary_root": root}}}
    (before,) = planned(replace(job, model=model))
    assert before.training.startswith(before.training_key)
    Image.new("RGB", (40, 40)).save(tmp_path / "MVTecAD/bottle/test/good/009.png")
    (after,) = planned(replace(job, model=model))
    assert after.training != before.training
    assert after.key != before.key


def test_good_images_of_a_draw(job):
    jobs = [replace(job, draw=draw, model={"class_path": "Patchcore", "k_shot": k}) for draw, k in ((0, 2), (1, 2), (0, "all"))]
    first, second, every = (each.references for each in planned(*jobs, draws=2))
    assert len(first) == len(second) == 2
    assert first != second
    assert every == tuple(f"tile/train/good/{number:03}.png" for number in range(4))


def test_what_cannot_run_says_why_and_the_others_can(tmp_path, job):
    nowhere = {"class_path": "Folder", "init_args": {"name": "x", "root": str(tmp_path / "no"), "normal_dir": "a"}}
    many = replace(job, draw=0, model={"class_path": "Patchcore", "k_shot": 5})
    learning = replace(job, model={"class_path": "DPCLIP", "init_args": {"auxiliary": "nowhere"}})
    sound, *others = planned(job, replace(job, data=nowhere), many, learning)
    assert sound.reason == ""
    assert "no" in others[0].reason
    assert "k_shot 5 is more than the 4 different normal images in the training split of MVTecAD/tile" in others[1].reason
    assert "unknown data set 'nowhere'" in others[2].reason


def test_wrong_adapters_are_refused(tmp_path, job):
    file = tmp_path / "wrong.safetensors"
    grid = {"class_path": "anomalib_dpclip.DPCLIP", "init_args": {"weights": {"grid": ["clip", None, str(file)]}}}
    wrong = {"benchmark": {"model": {"grid": [job.model, grid]}}}
    with pytest.raises(FileNotFoundError, match=r"weights .*wrong\.safetensors, of the config or of DPCLIP_WEIGHTS"):
        check_weights(wrong)
    file.write_bytes(b"no adapters")
    with pytest.raises(ValueError, match=r"weights .*wrong\.safetensors"):
        check_weights(wrong)
    check_weights({"model": {"class_path": "DPCLIP", "init_args": {"weights": "clip"}}})


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


def test_what_was_drawn_can_be_given(tmp_path):
    draws = Draws(2)
    chosen = [draws.choose("S/c", IMAGES, draw, k) for draw, k in ((0, 4), (1, 2), (0, 3))]
    draws.write(tmp_path / "draws.json")
    assert json.loads((tmp_path / "draws.json").read_text()) == {"S/c": [list(chosen[0]), list(chosen[1])]}
    given = Draws(tmp_path / "draws.json")
    assert given.count("S/c") == 2
    assert given.choose("S/c", IMAGES, 0, 3) == chosen[2]
    assert given.choose("S/c", IMAGES, 1, 2) == chosen[1]


def two_of_the_last(draws):
    return draws.choose("S/c", IMAGES, draws.count("S/c") - 1, 2)


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
        two_of_the_last(Draws(tmp_path / "d.json"))


def test_a_wrong_number_or_file():
    for number in (0, True, None):
        with pytest.raises(ValueError, match="draws must be a number from 1"):
            Draws(number)
    with pytest.raises(FileNotFoundError, match=r"no file nowhere\.json"):
        Draws("nowhere.json")
