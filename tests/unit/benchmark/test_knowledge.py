"""What models know of their target, by what they are."""

from types import SimpleNamespace

import pandas as pd
import pytest
from anomalib import LearningType

from anomalib_dpclip.benchmark.knowledge import knowledge_of, knowledge_order, thresholds_of


def model(kind, photos=None, **attributes):
    if photos is not None:
        paths = [f"{number}.png" for number in range(photos)]
        attributes["references"] = SimpleNamespace(source="folder", k_shot=0, paths=lambda datamodule: paths)
    return SimpleNamespace(learning_type=kind, **attributes)


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


def test_a_model_that_learns_from_some_images_only():
    known = [knowledge_of(model(LearningType.ONE_CLASS), references) for references in (None, "all", 1, 16)]
    assert known == ["all normal photos", "all normal photos", "1 normal photo", "16 normal photos"]


def data(validation, tested):
    splits = {"val_data": validation, "test_data": tested}
    return SimpleNamespace(
        **{name: paths and SimpleNamespace(samples=pd.DataFrame({"image_path": paths})) for name, paths in splits.items()}
    )


@pytest.mark.parametrize(
    ("basis", "datamodule", "said", "rate"),
    [
        ("", data(["a"], ["b"]), "best F1 score of the validation images", None),
        ("", data(["a"], ["a", "b"]), "best F1 score of the validation images (the validation images are those tested)", None),
        ("of 4 images; no guarantee", data(None, ["b"]), "of 4 images; no guarantee", None),
    ],
)
def test_what_thresholds_were_set_on(basis, datamodule, said, rate):
    tested = SimpleNamespace(post_processor=SimpleNamespace(calibration=SimpleNamespace(threshold_basis=basis)))
    assert thresholds_of(tested, datamodule) == (said, rate)


def test_the_guaranteed_rate_is_the_calibration_s():
    calibration = SimpleNamespace(threshold_basis="in any words", guaranteed_rate=0.2)
    tested = SimpleNamespace(post_processor=SimpleNamespace(calibration=calibration))
    assert thresholds_of(tested, data(None, ["a"])) == ("in any words", 0.2)


def test_what_is_not_known_comes_last():
    photos = ["some normal photos", "1 normal photo", "3 normal photos", "16 normal photos"]
    known = ["nothing", *photos, "the unlabelled lot", "3 normal photos and the unlabelled lot", "all normal photos", "else"]
    reverse = known[::-1]
    assert sorted(reverse, key=knowledge_order) == known
