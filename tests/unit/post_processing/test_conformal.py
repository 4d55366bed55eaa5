"""The conformal bound, against a count of all cases and by hand."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomalib_dpclip.post_processing.conformal import false_alarm_threshold, guarantee_of, images_needed, too_few


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=25), st.integers(1, 99))
def test_of_all_ways_to_leave_one_out_no_more_than_the_rate_exceeds(scores, percents):
    """What the bound rests on: any of n + 1 images may be the new one. Ties are in favour of normal."""
    rate = Fraction(percents, 100)
    alarms = 0
    for index in range(len(scores)):
        known = torch.tensor(scores[:index] + scores[index + 1 :]).float()
        alarms += scores[index] > false_alarm_threshold(known, percents / 100)
    bound = max(rate, Fraction(1, len(scores)))  # with too few images the strictest threshold has this one
    assert Fraction(alarms, len(scores)) <= bound


@pytest.mark.parametrize(("count", "rate"), [(19, 0.05), (20, 0.1), (99, 0.01), (100, 0.29), (50, 0.05), (3, 0.25)])
def test_it_is_the_smallest_of_the_scores_that_keeps_the_rate(count, rate):
    scores = torch.randperm(count, generator=torch.Generator().manual_seed(0)).float()
    threshold = false_alarm_threshold(scores, rate)
    rank = int((scores <= threshold).sum())
    exact = Fraction(str(rate))
    assert rank == math.ceil((count + 1) * (1 - exact))
    assert 1 - Fraction(rank, count + 1) <= exact < 1 - Fraction(rank - 1, count + 1)
    # No threshold is never exceeded: the largest score is the strictest there is.
    assert false_alarm_threshold(scores, 0.0) == count - 1


@pytest.mark.parametrize(("rate", "needed"), [("0.05", 19), ("0.01", 99), ("0.1", 9), ("0.29", 3), ("0.5", 1), ("0.3", 3)])
def test_images_that_a_rate_takes(rate, needed):
    assert images_needed(Fraction(rate)) == needed
    assert too_few(needed, Fraction(rate)) == ""
    assert f"takes {needed} normal images, there are {needed - 1}" in too_few(needed - 1, Fraction(rate))
    # One image less, and even the largest score would be exceeded too often.
    assert Fraction(1, needed + 1) <= Fraction(rate) < Fraction(1, needed)


def test_what_is_promised():
    assert guarantee_of(80, 0.05, " of Surfaces/weave") == (
        "a new normal image of the same source exceeds the image threshold with a probability of at most 5 %, and the pixel "
        "threshold anywhere with at most 5 %; from 80 normal images of Surfaces/weave"
    )
    assert "at most 4.77 %" in guarantee_of(20, 0.01, "")
    assert guarantee_of(20, 0.01, "").endswith("; a false-alarm rate of 1 % takes 99 normal images, there are 20")
    assert guarantee_of(20, 0.0, "").endswith("at most 4.77 %; from 20 normal images")  # none was asked for
