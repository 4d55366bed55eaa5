"""Text and distances, standardised by what is usual and added."""

import numpy as np
import pytest
import torch
from scipy.stats import median_abs_deviation

from anomalib_dpclip.scorers.fusion import Fusion, standardised, unit_interval, usual


def test_usual_is_the_median_and_the_robust_deviation():
    values = torch.randn(3, 47, generator=torch.Generator().manual_seed(0)).square()
    found = usual(values)
    assert found[0].item() == np.median(values)
    assert found[1].item() == pytest.approx(median_abs_deviation(values, axis=None, scale="normal"), rel=1e-4)
    assert usual(torch.ones(5))[1] > 0


def test_standardised_values_are_in_deviations():
    assert standardised(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 0.5])).tolist() == [-2, 4]


def test_the_unit_interval_is_increasing_and_never_reached():
    values = torch.tensor([-1e4, -20.0, 0, 1, 20, 1e4])
    found = unit_interval(values)
    assert (found.diff() > 0).all()
    assert found[0] > 0
    assert found[-1] < 1
    assert found[[1, 2, 4]].tolist() == [0.25, 0.5, 0.75]


def fusion(text_weight):
    return Fusion(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 0.5]), torch.tensor([0.4, 0.1]), text_weight)


def test_evidence_by_hand():
    margin, distance, score = torch.full((1, 2, 2), 5.0), torch.full((1, 2, 2), 4.0), torch.tensor([0.6])
    evidence = fusion(0.5).map_evidence(margin, distance)
    assert evidence.unique().tolist() == [2 + 0.5 * 2]
    assert fusion(0.5).image_evidence(evidence, score).item() == pytest.approx(3 + 0.5 * 2)
    assert fusion(0.5).image_evidence(evidence, None).item() == 3


def test_a_text_of_no_weight_is_no_part_of_it():
    without = fusion(0)
    assert not without.uses_text
    nonsense = torch.full((1, 2, 2), torch.nan)
    assert without.map_evidence(nonsense, torch.full((1, 2, 2), 4.0)).unique().tolist() == [2]
    assert without.image_evidence(torch.ones(1, 2, 2), torch.tensor([torch.nan])).item() == 1
