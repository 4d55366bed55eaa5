"""What models know of their target, by what they are."""

from types import SimpleNamespace

import pandas as pd
import pytest
from anomalib import LearningType
from anomalib.models import Padim

from anomalib_dpclip import DPCLIP
from anomalib_dpclip.benchmark.knowledge import knowledge_of, knowledge_order, thresholds_of

CLIP = {"backbone": "mini", "weights": "clip"}
FOLDER = SimpleNamespace(source="folder", k_shot=0, paths=lambda datamodule: ["a.png", "b.png"])


@pytest.mark.parametrize(
    ("model", "references", "knows"),
    [
        (lambda: DPCLIP(**CLIP), None, "nothing"),
        (lambda: DPCLIP(**CLIP, k_shot=3), None, "3 normal photos"),
        (lambda: DPCLIP(**CLIP, lot=True), None, "the unlabelled lot"),
        (lambda: Padim(pre_trained=False), None, "all normal photos"),
        (lambda: Padim(pre_trained=False), 1, "1 normal photo"),
        (lambda: Padim(pre_trained=False), "all", "all normal photos"),
        (lambda: SimpleNamespace(learning_type=LearningType.FEW_SHOT), None, "some normal photos"),
        (lambda: SimpleNamespace(learning_type=LearningType.FEW_SHOT, references=FOLDER), None, "2 normal photos"),
        (lambda: SimpleNamespace(learning_type=LearningType.FEW_SHOT, k_shot=4), None, "4 normal photos"),
        (
            lambda: SimpleNamespace(learning_type=LearningType.FEW_SHOT, k_shot=1, lot=True),
            None,
            "1 normal photo and the unlabelled lot",
        ),
    ],
)
def test_knowledge(model, references, knows):
    assert knowledge_of(model(), references) == knows


@pytest.mark.parametrize(
    ("basis", "validation", "said"),
    [
        ("", ["a"], "best F1 score of the validation images"),
        ("", ["b"], "best F1 score of the validation images (the validation images are those tested)"),
        ("of 4 images; no guarantee", None, "of 4 images; no guarantee"),
    ],
)
def test_what_thresholds_were_set_on(basis, validation, said):
    calibration = SimpleNamespace(threshold_basis=basis, guaranteed_rate=0.2)
    model = SimpleNamespace(post_processor=SimpleNamespace(calibration=calibration))
    val, test = (paths and SimpleNamespace(samples=pd.DataFrame({"image_path": paths})) for paths in (validation, ["b", "c"]))
    assert thresholds_of(model, SimpleNamespace(val_data=val, test_data=test)) == (said, 0.2)


def test_what_is_not_known_comes_last():
    photos = ["some normal photos", "1 normal photo", "3 normal photos", "16 normal photos"]
    known = ["nothing", *photos, "the unlabelled lot", "3 normal photos and the unlabelled lot", "all normal photos", "else"]
    backwards = known[::-1]
    assert sorted(backwards, key=knowledge_order) == known
