"""Image metrics and operating points against scikit-learn, every threshold and the published evaluation."""

import math
import pickle
from fractions import Fraction

import pytest
import torch
from anomalib.data import ImageBatch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from anomalib_dpclip.metrics import benchmark_metrics, field_metrics, operating_point_metrics
from anomalib_dpclip.metrics.evaluator import fnr_at_fpr, fpr_at_fnr

NAMES = ["image_AUROC", "image_AP", "image_F1Max", "pixel_AUROC", "pixel_AP", "pixel_AUPRO", "pixel_F1Max"]
POINTS = [f"{name}_{share}" for name in ("fpr_at_fnr", "fnr_at_fpr") for share in (2, 5, 10)]


def _batch(scores, labels=None):
    scores = torch.as_tensor(scores)
    labels = None if labels is None else torch.as_tensor(labels)
    return ImageBatch(image=torch.zeros(len(scores), 3, 2, 2), pred_score=scores, gt_label=labels)


def _figures(*batches):
    metrics = [*field_metrics()[:3], *operating_point_metrics()]
    for metric in metrics:
        for batch in batches:
            metric.update(batch)
    return {metric.name: float(metric.compute()) for metric in metrics}


def test_ties_count_as_scikit_learn_counts_them_and_batches_add_up():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 20, (200,), generator=generator) / 20
    labels = torch.randint(0, 2, (200,), generator=generator)
    found = _figures(*map(_batch, scores.split(32), labels.split(32)))
    assert found["image_AUROC"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-5)
    assert found["image_AP"] == pytest.approx(average_precision_score(labels, scores), abs=1e-5)
    assert found["fpr_at_fnr_5"] == pytest.approx(float(fpr_at_fnr(scores, labels, 0.05)))
    assert found["fnr_at_fpr_10"] == pytest.approx(float(fnr_at_fpr(scores, labels, 0.1)))


@pytest.mark.parametrize("labels", [[0, 0], [1, 1], None])
def test_one_kind_of_image_or_no_label_leaves_the_figures_undefined(labels):
    assert all(map(math.isnan, _figures(_batch([0.1, 0.9], labels)).values()))


@pytest.mark.parametrize("bad", [-0.5, 1.5, math.nan])
def test_scores_outside_the_unit_interval_are_refused(bad):
    with pytest.raises(ValueError, match=r"image scores must lie in \[0, 1\]"):
        _figures(_batch([0.5, bad], [0, 1]))


SCORES = st.lists(st.integers(0, 8), min_size=1, max_size=20)


@settings(max_examples=100, deadline=None)
@given(SCORES, SCORES, st.integers(0, 99))
def test_no_threshold_does_better_than_an_operating_point(normal, anomalous, percents):
    share = Fraction(percents, 100)
    images = torch.tensor(normal + anomalous).float(), torch.tensor([0] * len(normal) + [1] * len(anomalous))
    rates = [
        (Fraction(sum(n > t for n in normal), len(normal)), Fraction(sum(a <= t for a in anomalous), len(anomalous)))
        for t in (-1, *normal, *anomalous)
    ]
    lowest_fpr = min(alarms for alarms, misses in rates if misses <= share)
    lowest_fnr = min(misses for alarms, misses in rates if alarms <= share)
    assert float(fpr_at_fnr(*images, percents / 100)) == pytest.approx(float(lowest_fpr))
    assert float(fnr_at_fpr(*images, percents / 100)) == pytest.approx(float(lowest_fnr))


def test_they_come_in_the_order_of_the_tables_and_a_model_that_holds_them_can_be_pickled():
    assert [metric.name for metric in pickle.loads(pickle.dumps(benchmark_metrics()))] == [*NAMES, "pixel_AUPRO_5", *POINTS]


@pytest.mark.parametrize("pooling", ["batch", "tokens"])
@pytest.mark.parametrize("domain", ["industrial", "medical"])
def test_published_evaluation_is_met(parity, pooling, domain):
    published = parity.meta[f"metrics/{pooling}/{domain}"]
    maps, detection = (parity[f"predict/{pooling}/{domain}/{name}"] for name in ("map", "det"))
    scores = ((maps - maps.min()) / (maps.max() - maps.min())).amax(dim=(1, 2))
    if domain == "industrial":
        scores = 0.5 * scores + 0.5 * (detection - detection.min()) / (detection.max() - detection.min())
    found = _figures(_batch(scores, parity["in/labels"]))
    expected = [published["image AUC"], published["image AP"], published["image F1 max"]]
    assert [100 * found[name] for name in NAMES[:3]] == pytest.approx(expected, abs=0.0051)
