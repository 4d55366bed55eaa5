"""False alarms at limited misses, and the reverse, by hand and against every threshold there is."""

import math
import pickle
from fractions import Fraction

import pytest
import torch
from anomalib.data import ImageBatch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomalib_dpclip.metrics import operating_point_metrics
from anomalib_dpclip.metrics.evaluator import fnr_at_fpr, fpr_at_fnr

NORMAL = [0.1, 0.2, 0.3, 0.7]
ANOMALOUS = [0.25, 0.5, 0.6, 0.8, 0.9]


def images(normal, anomalous):
    return torch.tensor(normal + anomalous).float(), torch.tensor([0] * len(normal) + [1] * len(anomalous))


def test_by_hand():
    pair = images(NORMAL, ANOMALOUS)
    # No miss: from 0.25 on, two of four normal ones. One of five: from 0.5 on, one of four.
    assert [float(fpr_at_fnr(*pair, share)) for share in (0.02, 0.19, 0.2, 0.6)] == [0.5, 0.5, 0.25, 0.0]
    # No false alarm: above 0.7, three of five missed. One of four: above 0.3, one of five.
    assert [float(fnr_at_fpr(*pair, share)) for share in (0.02, 0.25)] == pytest.approx([0.6, 0.2])


def test_equal_scores_cannot_be_told_apart():
    pair = images([0.5], [0.5, 0.9])
    assert float(fpr_at_fnr(*pair, 0.1)) == 1.0
    assert float(fnr_at_fpr(*pair, 0.1)) == 0.5


SCORES = st.lists(st.integers(0, 8), min_size=1, max_size=20)


@settings(max_examples=100, deadline=None)
@given(SCORES, SCORES, st.integers(0, 99))
def test_no_threshold_does_better(normal, anomalous, percents):
    share, pair = Fraction(percents, 100), images(normal, anomalous)
    thresholds = [-1, *normal, *anomalous]
    rates = [
        (Fraction(sum(n > t for n in normal), len(normal)), Fraction(sum(a <= t for a in anomalous), len(anomalous)))
        for t in thresholds
    ]
    lowest_fpr = min(alarms for alarms, misses in rates if misses <= share)
    lowest_fnr = min(misses for alarms, misses in rates if alarms <= share)
    assert float(fpr_at_fnr(*pair, percents / 100)) == pytest.approx(float(lowest_fpr))
    assert float(fnr_at_fpr(*pair, percents / 100)) == pytest.approx(float(lowest_fnr))


def measured(scores, labels, size):
    metrics = operating_point_metrics()
    for batch in zip(scores.split(size), labels.split(size), strict=True):
        for metric in metrics:
            metric.update(ImageBatch(image=torch.zeros(len(batch[0]), 3, 2, 2), pred_score=batch[0], gt_label=batch[1]))
    return {metric.name: float(metric.compute()) for metric in metrics}


def test_as_metrics():
    generator = torch.Generator().manual_seed(0)
    scores, labels = torch.rand(200, generator=generator), torch.randint(0, 2, (200,), generator=generator)
    found = measured(scores, labels, 32)
    assert list(found) == [f"{name}_{share}" for name in ("fpr_at_fnr", "fnr_at_fpr") for share in (2, 5, 10)]
    for share in (2, 5, 10):
        assert found[f"fpr_at_fnr_{share}"] == pytest.approx(float(fpr_at_fnr(scores, labels, share / 100)))
        assert found[f"fnr_at_fpr_{share}"] == pytest.approx(float(fnr_at_fpr(scores, labels, share / 100)))
    assert found["fpr_at_fnr_2"] >= found["fpr_at_fnr_5"] >= found["fpr_at_fnr_10"]


@pytest.mark.parametrize("label", [0, 1])
def test_one_kind_of_image_leaves_them_undefined(label):
    assert all(map(math.isnan, measured(torch.rand(4), torch.full((4,), label), 2).values()))


def test_a_model_that_holds_them_can_be_pickled():
    (first, *_) = pickle.loads(pickle.dumps(operating_point_metrics()))
    assert first.name == "fpr_at_fnr_2"
