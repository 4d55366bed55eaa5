"""Text and distances, standardised by what is usual and added; how much the text counts is learned from labels."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import median_abs_deviation

from anomalib_dpclip.scorers import text_weight
from anomalib_dpclip.scorers.comparison import Evidence
from anomalib_dpclip.scorers.fusion import Fusion, unit_interval, usual
from anomalib_dpclip.scorers.text_weight import WEIGHTS, Episode, best_weight, least_equivalent, weight_for


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


ONE = torch.tensor([0.0, 1.0])


class PlainComparison(SimpleNamespace):
    def predict(self, fusion, found):
        evidence = fusion.map_evidence(found.margin, found.distance)
        image = fusion.image_evidence(evidence, found.score)
        return SimpleNamespace(anomaly_map=evidence.sigmoid(), pred_score=image.sigmoid())


def episode(seed, text_knows):
    """One defect in the first of two images; the distance misses half of it, the text sees it all or only noise."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(2, 8, 8)
    mask[0, :2] = 1
    distance = torch.rand(2, 8, 8, generator=generator)
    distance[0, 0] += 2
    noise = 3 * torch.rand(2, 8, 8, generator=generator)
    margin = 3 * mask if text_knows else noise
    return Episode(Evidence(margin, torch.zeros(2), distance), Fusion(ONE, ONE, ONE, 0.0), mask, torch.tensor([1, 0]))


@pytest.mark.parametrize(("text_knows", "expected"), [(True, range(4, 7)), (False, range(1))])
def test_the_text_counts_where_it_knows_what_images_show(text_knows, expected):
    weight = best_weight(PlainComparison(), [episode(seed, text_knows) for seed in range(6)])
    assert WEIGHTS.index(weight) in expected


def test_a_weight_that_is_no_worse_than_chance_would_have_it_is_preferred_if_it_is_less():
    steady = [[quality] * 3 for quality in (0.1, 0.2, 0.3, 0.7, 0.8, 0.4, 0.3)]
    assert least_equivalent(steady) == 0.2  # every episode says so
    unsure = [[0.9, 0.5, 0.6], [0.5, 0.9, 0.7], *([[0.1, 0.2, 0.3]] * 5)]
    assert least_equivalent(unsure) == 0.0  # 0.02 is better by 0.03, and the episodes disagree
    assert least_equivalent([[value] for value in (0.1, 0.5, 0.2, 0.2, 0.2, 0.2, 0.2)]) == 0.02  # one has no error


def test_the_weight_of_the_nearest_number_of_photos_counts_and_the_plain_sum_where_none_was_learned():
    learned = {"1": 0.5, "4": 0.1}
    assert [weight_for(learned, count) for count in (1, 2, 3, 4, 200)] == [0.5, 0.5, 0.1, 0.1, 0.1]
    assert weight_for({}, 4) == text_weight.PLAIN_SUM == 1.0
