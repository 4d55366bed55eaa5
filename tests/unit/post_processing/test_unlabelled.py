"""Thresholds of an unlabelled batch."""

import pytest
import torch

from anomalib_dpclip.post_processing.unlabelled import mostly_anomalous, unlabelled_threshold, unlabelled_thresholds


def test_a_batch_of_two_kinds_most_of_them_anomalous_is_noticed():
    normal, damaged = torch.linspace(0.1, 0.12, 30), torch.linspace(0.3, 0.33, 50)
    assert mostly_anomalous(torch.cat([normal, damaged]))
    assert not mostly_anomalous(torch.cat([normal, damaged[:20]]))
    assert not mostly_anomalous(torch.linspace(0, 1, 50).square())
    assert not mostly_anomalous(torch.ones(10))


def test_the_threshold_is_far_above_most_scores():
    scores = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    assert unlabelled_threshold(scores) == pytest.approx(2.84, abs=0.15), "of a normal distribution it is 2.8 deviations"
    assert unlabelled_threshold(scores[:39]) == pytest.approx(3, abs=0.6)
    assert unlabelled_threshold(torch.ones(5)) > 1, "identical scores are normal"
    assert unlabelled_threshold(torch.ones(50)) > 1


@pytest.mark.parametrize("damaged", [0, 20, 40, 60])
def test_damaged_images_do_not_hide_each_other(damaged):
    generator = torch.Generator().manual_seed(1)
    normal, anomalous = torch.randn(60, generator=generator), 6 + 2 * torch.randn(damaged, generator=generator)
    threshold = unlabelled_threshold(torch.cat([normal, anomalous]))
    assert (normal > threshold).sum() <= 2
    assert (anomalous <= threshold).sum() <= damaged // 4


@pytest.mark.parametrize(("count", "words"), [(39, "3 deviations above the median of 39 images"), (40, "quietest third")])
def test_what_the_thresholds_are_is_said(count, words):
    scores = torch.rand(count, generator=torch.Generator().manual_seed(0))
    assert words in unlabelled_thresholds(scores, scores).threshold_basis
