"""What is settled before jobs run: contents of files, good images, and what cannot run."""

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
    gone = replace(
        job, data={"class_path": "Folder", "init_args": {"name": "x", "root": str(tmp_path / "no"), "normal_dir": "a"}}
    )
    many = replace(job, draw=0, model={"class_path": "Patchcore", "k_shot": 5})
    learning = replace(job, model={"class_path": "DPCLIP", "init_args": {"auxiliary": "nowhere"}})
    sound, *others = planned(job, gone, many, learning)
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
