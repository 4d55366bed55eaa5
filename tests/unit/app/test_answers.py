"""What the page answers to several photos at once."""

import re

import pytest
from tests.data.golden.make_golden import GOLDEN
from tests.spotted import soft_photo

from anomalib_dpclip.app.answers import MAX_JUDGED, Answers
from anomalib_dpclip.app.predictor import Predictor
from anomalib_dpclip.model.from_file import model_from_file


@pytest.fixture(scope="module")
def answers():
    return Answers(Predictor(model_from_file(GOLDEN / "adapters-v1.safetensors", visualizer=False)))


@pytest.fixture
def photos(tmp_path):
    fine, spotted = soft_photo(tmp_path / "fine.png", 40), soft_photo(tmp_path / "spotted.png", 41, (30, 60))
    (tmp_path / "none.png").write_bytes(b"none")
    return [str(fine), str(tmp_path / "none.png"), str(spotted)]


def test_several_photos_are_a_table_and_their_heat_maps(answers, photos, tmp_path):
    good = [str(soft_photo(tmp_path / f"good{seed}.png", seed)) for seed in range(4)]
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
