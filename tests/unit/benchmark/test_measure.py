"""Host models: what they know of their target, and how they are made comparable."""

from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from anomalib import LearningType
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.models import Padim, Patchcore
from anomalib.post_processing import PostProcessor

from anomalib_dpclip import DPCLIP
from anomalib_dpclip.benchmark.knowledge import knowledge_of, thresholds_of
from anomalib_dpclip.benchmark.measure import keep_apart, use_network
from anomalib_dpclip.clip.feature_tower import EMBEDDED, load_feature_tower

LAYERS = ["blocks.2", "blocks.4", "blocks.6"]


def test_a_host_model_sees_the_images_and_has_the_features_of_the_memory():
    model, tower = Patchcore("tf_efficientnet_lite0", LAYERS, pre_trained=False), load_feature_tower(EMBEDDED)
    use_network(model, EMBEDDED)
    image = torch.rand(1, 3, 100, 80)
    prepared = model.pre_processor.transform(image)
    assert prepared.shape[-2:] == tower.image_size
    features = list(model.model.feature_extractor(prepared).values())
    for found, expected in zip(features, tower.network(prepared), strict=True):
        torch.testing.assert_close(found, expected)


def test_scores_beyond_those_of_good_validation_images_stay_apart():
    post_processor, good = PostProcessor(image_sensitivity=0.4), torch.tensor([0.2, 0.5, 1.0])
    batch = ImageBatch(image=torch.zeros(3, 3, 2, 2), pred_score=good, gt_label=torch.zeros(3, dtype=torch.int))
    post_processor.on_validation_batch_end(None, None, batch)
    post_processor.on_validation_epoch_end(None, None)
    scores = torch.tensor([0.5, 1.1, 3.0, 5.0])
    clamped = post_processor(InferenceBatch(pred_score=scores))
    keep_apart(post_processor)
    found = post_processor(InferenceBatch(pred_score=scores))
    assert clamped.pred_score[2] == clamped.pred_score[3] == 1
    assert (found.pred_score.diff() > 0).all()
    assert found.pred_score.max() < 1
    assert found.pred_label.tolist() == clamped.pred_label.tolist() == [False, True, True, True]


def test_a_host_model_of_another_backbone_is_refused():
    with pytest.raises(ValueError, match="network: Padim does not take the weights of efficientnet_lite0"):
        use_network(Padim(pre_trained=False), EMBEDDED)


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
