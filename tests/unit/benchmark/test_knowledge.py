"""What models know of their target, by what they are."""

from types import SimpleNamespace

import pytest
from anomalib import LearningType

from anomalib_dpclip.benchmark.knowledge import ALL_NORMAL, assumed_knowledge, knowledge_of, knowledge_order


def model(kind, photos=None, **attributes):
    memory = None if photos is None else SimpleNamespace(photos=photos)
    return SimpleNamespace(learning_type=kind, model=SimpleNamespace(memory=memory), **attributes)


@pytest.mark.parametrize(
    ("tested", "knows"),
    [
        (model(LearningType.ZERO_SHOT), "nothing"),
        (model(LearningType.ONE_CLASS), "all normal photos"),
        (model(LearningType.FEW_SHOT, k_shot=4), "4 normal photos"),
        (model(LearningType.FEW_SHOT, k_shot=1), "1 normal photo"),
        (model(LearningType.FEW_SHOT, photos=7, k_shot=0, lot=False), "7 normal photos"),  # of a folder
        (model(LearningType.ZERO_SHOT, lot=True), "the unlabelled lot"),
        (model(LearningType.FEW_SHOT, photos=2, lot=True), "2 normal photos and the unlabelled lot"),
        (model(LearningType.FEW_SHOT), "some normal photos"),
    ],
)
def test_knowledge(tested, knows):
    assert knowledge_of(tested) == knows


def test_models_of_this_package_and_of_anomalib():
    from anomalib.models import Padim

    from anomalib_dpclip import DPCLIP

    assert knowledge_of(DPCLIP(backbone="mini", weights="clip")) == "nothing"
    assert knowledge_of(DPCLIP(backbone="mini", weights="clip", k_shot=3)) == "3 normal photos"
    assert knowledge_of(DPCLIP(backbone="mini", weights="clip", lot=True)) == "the unlabelled lot"
    assert knowledge_of(Padim(pre_trained=False)) == "all normal photos"


def test_rows_from_before_it_was_kept():
    assert [assumed_knowledge(each) for each in ("DPCLIP", "Patchcore")] == ["nothing", ALL_NORMAL]


def test_what_is_not_known_comes_last():
    photos = ["some normal photos", "1 normal photo", "3 normal photos", "16 normal photos"]
    known = ["nothing", *photos, "the unlabelled lot", "3 normal photos and the unlabelled lot", "all normal photos", "else"]
    reverse = known[::-1]
    assert sorted(reverse, key=knowledge_order) == known
