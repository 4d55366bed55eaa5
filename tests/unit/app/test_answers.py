"""What the page answers: to one photo and to several, with good photos beside them or without."""

import hashlib
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from anomalib.engine import Engine
from PIL import Image
from tests.arguments import grouped, make_dpclip
from tests.data.golden.make_golden import GOLDEN
from tests.spotted import soft_photo

from anomalib_dpclip import Photos
from anomalib_dpclip.app.answers import MAX_JUDGED, Answers
from anomalib_dpclip.app.app_command import page_model
from anomalib_dpclip.app.correct_command import write_corrected
from anomalib_dpclip.app.good_photos import MAX_PHOTOS
from anomalib_dpclip.app.predictor import UNCALIBRATED, Predictor
from anomalib_dpclip.data.regions import batch_regions
from anomalib_dpclip.model.from_file import model_from_file
from anomalib_dpclip.scorers.memory_fit import MemoryFit

ADAPTERS = GOLDEN / "adapters-v1.safetensors"


def photo(path, seed, size=(160, 120), **drawn):
    return str(soft_photo(path, seed, size=size, **drawn))


@pytest.fixture
def good(tmp_path):
    return [photo(tmp_path / "good" / f"{index}.png", index) for index in range(4)]


@pytest.fixture
def judged(tmp_path):
    return photo(tmp_path / "judged" / "photo.png", 40, spot=(30, 60))


def a_page(weights=ADAPTERS, checkpoint=None, **arguments):
    return Answers(Predictor(page_model(str(weights), domain="industrial", **grouped(**arguments))), checkpoint)


@pytest.fixture
def answers():
    return a_page()


def of(answer):
    return answer.judged[0].prediction if answer.judged else None


def same(first, second):
    return first.verdict == second.verdict and np.array_equal(of(first).anomaly_map, of(second).anomaly_map)


def uploaded(paths, folder):
    there = []
    for path in paths:
        place = folder / hashlib.sha256(Path(path).read_bytes()).hexdigest()
        place.mkdir(parents=True, exist_ok=True)
        there.append(shutil.copy(path, place))
    return there


@pytest.mark.parametrize("count", [1, 4])
def test_the_answer_is_that_of_a_folder_of_the_same_photos(answers, good, judged, tmp_path, count):
    for path in good[count:]:
        Path(path).unlink()
    model = make_dpclip(weights=ADAPTERS, class_name="weave", few_shot_source=tmp_path / "good", visualizer=False)
    engine = Engine(accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    (expected,) = engine.predict(model=model, datamodule=Photos(tmp_path / "judged", num_workers=0))

    answer = answers.look([judged], "weave", uploaded(good[:count], tmp_path / "server")[::-1], 0.5)
    prediction = of(answer)
    assert prediction.score == expected.pred_score.item()
    assert np.array_equal(prediction.anomaly_map, expected.anomaly_map[0].numpy())
    assert np.array_equal(prediction.anomaly_map > 0.5, expected.pred_mask[0].numpy())
    assert [prediction.regions(0.5)] == batch_regions(expected)
    assert prediction.regions(0.5), "there is something to compare"
    assert f"Known of the target: **{count} good photo{'s' if count > 1 else ''}**." in answer.verdict


@pytest.mark.parametrize("weights", [ADAPTERS, "clip"])
def test_without_them_the_text_s_answer_is_back_to_the_last_bit(judged, good, weights):
    answers = a_page(weights, backbone="mini")
    text = answers.look([judged], "weave", None, 0.5)
    photos = answers.look([judged], "weave", good, 0.5)
    assert not same(text, photos)
    assert "**nothing but its name**" in text.verdict
    assert (UNCALIBRATED in text.verdict) == (weights == "clip")
    assert UNCALIBRATED not in photos.verdict, "they set thresholds"
    assert same(answers.look([judged], "weave", [], 0.5), text)
    nameless = answers.look([judged], None, None, 0.5).verdict
    assert ("**nothing**, not even its name" in nameless) == (weights == "clip"), "the adapters' file names what they are for"


def test_visitors_with_other_photos_and_names_have_their_own_answers(answers, judged, good, monkeypatch):
    seen = []
    fit = MemoryFit.fit
    monkeypatch.setattr(MemoryFit, "fit", lambda self, images, weight: (seen.append(len(images)), fit(self, images, weight))[1])
    visitors = [("weave", good[:3]), ("brick", good[:3]), ("weave", good[2:]), ("weave", None)]
    first = [answers.look([judged], *visitor, 0.5) for visitor in visitors]
    again = [answers.look([judged], *visitor, 0.5) for visitor in visitors[::-1]][::-1]
    alone = [a_page().look([judged], *visitor, 0.5) for visitor in visitors]
    assert all(map(same, first, alone))
    assert all(map(same, again, alone))
    assert not same(alone[0], alone[2])
    assert seen[:5] == [3, 3, 2, 3, 3], "the third visitor's were the last that were seen"
    with ThreadPoolExecutor(2) as pool:
        at_once = list(pool.map(lambda visitor: answers.look([judged], *visitor, 0.5), 2 * visitors[2:]))
    assert all(map(same, at_once, 2 * alone[2:]))


def test_files_that_do_not_serve_are_named(judged, good, tmp_path):
    ignored = Image.new("L", (160, 120))
    ignored.paste(255, (0, 0, 40, 40))
    ignored.save(tmp_path / "ignore.png")
    photo(tmp_path / "other.png", 50, size=(80, 60))
    answers = a_page(ignore=str(tmp_path / "ignore.png"))
    (tmp_path / "notes.txt").write_text("no photo")
    (tmp_path / "cut.png").write_bytes(Path(good[0]).read_bytes()[:300])
    lines = {
        "notes.txt": "cannot read image notes.txt: empty, damaged or none of the formats",
        "cut.png": "cannot read image cut.png: ",
        "other.png": "other.png is 80x60, and the picture of what to ignore is 160x120",
        "gone.png": "gone.png: photos are deleted from here after an hour or two. Drop it again",
    }
    for name, line in lines.items():
        for paths in ([judged], None):  # also before there is a photo to judge
            answer = answers.look(paths, "weave", [*good, str(tmp_path / name)], 0.5)
            assert of(answer) is None
            assert answer.verdict.startswith(f"### No result\n{line}")
    verdict = answers.look([judged], "weave", [*good, str(shutil.copy(judged, tmp_path / "copy.png"))], 0.5).verdict
    assert verdict.startswith("### No result\nphoto.png is the photo to judge and, as copy.png, a good photo")
    many = [photo(tmp_path / "many" / f"{index}.png", index) for index in range(MAX_PHOTOS + 1)]
    assert of(answers.look([judged], "weave", many[1:], 0.5)) is not None
    assert answers.look([judged], "weave", many, 0.5).verdict.startswith("### No result\n17 good photos are more than the 16")
    begun = answers.look(None, "weave", good, 0.5).verdict
    assert begun == "Drop a photo, or several, to begin.\n\nKnown of the target: **4 good photos**."


def test_copies_count_once_and_another_aspect_is_told_of(answers, judged, good, tmp_path):
    copy = str(shutil.copy(good[0], tmp_path / "copy.png"))
    once, twice = (answers.look([judged], "weave", photos, 0.5) for photos in (good, [*good, copy, good[1]]))
    assert np.array_equal(of(once).anomaly_map, of(twice).anomaly_map)
    assert "6 good photos were given, 4 of them different: copies count once." in twice.verdict
    answer = answers.look([judged], "weave", [*good, photo(tmp_path / "wide.png", 50, size=(240, 120))], 0.5)
    assert "Of another aspect than the photo to judge (160x120): wide.png (240x120). Squeezed" in answer.verdict
    assert "aspect" not in once.verdict


def test_photos_of_a_checkpoint_count_again_when_those_of_the_page_are_taken_off(judged, good, tmp_path):
    model = model_from_file(GOLDEN / "checkpoint-v1.ckpt", visualizer=False)
    model.set_references([photo(tmp_path / "own" / f"{seed}.png", seed) for seed in range(10, 16)])
    write_corrected(model, GOLDEN / "checkpoint-v1.ckpt", tmp_path / "model.ckpt")
    answers = a_page(tmp_path / "model.ckpt", tmp_path / "model.ckpt")
    own = answers.look([judged], "weave", None, 0.5)
    assert "**6 good photos** kept in the checkpoint." in own.verdict
    others = answers.look([judged], "weave", good, 0.5)
    assert "**4 good photos**, in place of the 6 kept in the checkpoint." in others.verdict
    assert not same(own, others)
    assert same(answers.look([judged], "weave", None, 0.5), own)
    assert answers.predictor.score(judged) == of(own).score


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "none.png").write_bytes(b"none")
    fine, spotted = photo(tmp_path / "fine.png", 40), photo(tmp_path / "spotted.png", 41, spot=(30, 60))
    return [fine, str(tmp_path / "none.png"), spotted]


def test_several_photos_are_a_table_and_their_heat_maps(answers, photos, good):
    answer = answers.look(photos, "weave", good, 0.5)
    assert [each.name for each in answer.judged] == ["fine.png", "none.png", "spotted.png"]
    scores = [each.prediction and each.prediction.score for each in answer.judged]
    heading, table, known = answer.verdict.split("\n\n")
    assert heading == "## 1 of 3 anomalous\nThreshold 0.50"
    spotted, fine, unread = table.splitlines()[2:]
    assert re.search(rf"spotted\.png +\| +{scores[2]:.3f} +\| +Anomalous +\| +100 % of 4 good photos score lower", spotted)
    assert re.search(rf"fine\.png +\| +{scores[0]:.3f} +\| +Normal", fine)
    assert "cannot read image none.png" in unread
    assert known == "Known of the target: **4 good photos**."
    assert [line.split()[0] for _, line in answer.heat_maps] == ["spotted.png", "fine.png"]
    assert answer.photo is answer.heat_map is None
    for path, score in zip(photos, scores, strict=True):  # as it is alone
        alone = answers.look([path], "weave", good, 0.5).judged
        assert score == (alone[0].prediction.score if alone else None)
    moved = answers.decide(answer.judged, photos, "weave", good, 1)
    assert moved.verdict.startswith("## 0 of 3 anomalous\nThreshold 1.00")


def test_what_is_wrong_with_all_is_said_once(answers, photos, tmp_path):
    answer = answers.look([photos[0], photos[2]], "weave", [str(tmp_path / "none.png")], 0.5)
    assert answer.verdict.startswith("### No result\ncannot read image none.png")
    many = answers.look(photos[:1] * (MAX_JUDGED + 1), "weave", None, 0.5)
    assert many.verdict.startswith("### No result\n51 photos are more than the 50 that the page takes")
