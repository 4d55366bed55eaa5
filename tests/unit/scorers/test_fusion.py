"""Text and distances, standardised by what is usual and added."""

import numpy as np
import pytest
import torch
from scipy.stats import median_abs_deviation

from anomalib_dpclip.scorers.fusion import Fusion, unit_interval, usual


def test_usual_is_the_median_and_the_robust_deviation():
    values = torch.randn(3, 47, generator=torch.Generator().manual_seed(0)).square()
    median, deviation = usual(values).tolist()
    assert median == np.median(values)
    assert deviation == pytest.approx(median_abs_deviation(values, axis=None, scale="normal"), rel=1e-4)
    assert usual(torch.ones(5))[1] > 0


def test_the_unit_interval_is_increasing_and_never_reached():
    found = unit_interval(torch.tensor([-1e4, -20.0, 0, 1, 20, 1e4]))
    assert (found.diff() > 0).all()
    assert 0 < found[0] < found[-1] < 1
    assert found[[1, 2, 4]].tolist() == [0.25, 0.5, 0.75]


def fusion(text_weight):
    return Fusion(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 0.5]), torch.tensor([0.4, 0.1]), text_weight)


def test_evidence_by_hand():
    margin, distance, score = torch.full((1, 2, 2), 5.0), torch.full((1, 2, 2), 4.0), torch.tensor([0.6])
    evidence = fusion(0.5).map_evidence(margin, distance)
    assert evidence.unique().tolist() == [2 + 0.5 * 2]
    assert fusion(0.5).image_evidence(evidence, score).item() == pytest.approx(3 + 0.5 * 2)
    assert fusion(0.5).image_evidence(evidence, None).item() == 3
    # A text of no weight is no part of it, whatever it says.
    assert fusion(0).map_evidence(margin * torch.nan, distance).unique().tolist() == [2]
    assert fusion(0).image_evidence(torch.ones(1, 2, 2), score * torch.nan).item() == 1


def test_what_is_usual_of_one_evidence_may_be_that_of_another():
    nothing = torch.tensor([0.0, 1.0])
    room = Fusion(nothing, nothing, nothing, 0.5)
    room.load_state_dict(fusion(0.5).state_dict())
    assert (room.text.tolist(), room.distance.tolist()) == ([1.0, 2.0], [3.0, 0.5])
