"""Normalisation, thresholds and score fusion, against scikit-learn and by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomalib_dpclip.post_processing.calibration import Calibration
from anomalib_dpclip.post_processing.calibration_statistics import CalibrationStatistics, ImageStatistics
from anomalib_dpclip.post_processing.conformal import false_alarm_threshold
from anomalib_dpclip.post_processing.scale import image_score, piecewise_linear, separate_control_points
from anomalib_dpclip.post_processing.thresholds import best_f1_threshold, fused_by_others

UNIT = st.floats(0, 1, width=32)
SCORES = st.lists(st.integers(0, 6), min_size=2, max_size=25)  # few values, so that many are equal


def test_control_points_go_where_they_belong():
    points = torch.tensor([-2.0, 0.1, 0.4, 0.8, 3.0])
    torch.testing.assert_close(piecewise_linear(points, points), torch.tensor([0.0, 0.05, 0.5, 0.95, 1.0]))
    # Halfway between two points is halfway between their places.
    torch.testing.assert_close(piecewise_linear(torch.tensor([0.25, 0.6]), points), torch.tensor([0.275, 0.725]))


@settings(max_examples=100, deadline=None)
@given(st.tuples(UNIT, UNIT, UNIT), st.lists(UNIT, min_size=2, max_size=30))
def test_control_points_always_ascend_and_order_is_never_reversed(bounds, values):
    low, threshold, high = bounds
    points = separate_control_points(0.0, min(low, high), threshold, max(low, high), 1.0)
    assert points[0] == 0
    assert points[-1] == 1
    assert (points.diff() > 0).all()
    normalised = piecewise_linear(torch.tensor(values).sort().values, points)
    assert (normalised.diff() >= 0).all()
    assert normalised.min() >= 0
    assert normalised.max() <= 1


@settings(max_examples=100, deadline=None)
@given(SCORES, st.data())
def test_best_f1_threshold_is_as_good_as_any(scores, data):
    labels = data.draw(st.lists(st.integers(0, 1), min_size=len(scores), max_size=len(scores)).filter(any))
    scores, labels = torch.tensor(scores) / 6, torch.tensor(labels)
    threshold = best_f1_threshold(scores, labels)

    def f1(called):
        return 2 * (labels * called).sum() / (labels.sum() + called.sum())

    assert f1(scores > threshold) == max(f1(scores >= value) for value in scores.unique())


def statistics(maps, detection, label=None, mask=None):
    seen = CalibrationStatistics()
    seen.update(
        torch.tensor(maps)[:, None, :],
        torch.tensor(detection),
        None if label is None else torch.tensor(label),
        None if mask is None else torch.tensor(mask)[:, None, :],
    )
    return seen


MAPS = [[0.40, 0.44], [0.42, 0.48], [0.46, 0.60]]
DETECTION = [0.50, 0.52, 0.54]


def test_fusion_by_hand():
    calibration = Calibration()
    calibration.set_from(statistics(MAPS, DETECTION, [0, 0, 1]), 0.5)
    torch.testing.assert_close(calibration.map_range, torch.tensor([0.40, 0.60]))
    torch.testing.assert_close(calibration.detection_range, torch.tensor([0.50, 0.54]))
    peak, detection = torch.tensor([0.44, 0.60, 0.64]), torch.tensor([0.50, 0.54, 0.52])
    # Shares of the range: peaks (0.2, 1, 1.2), detection (0, 1, 0.5).
    torch.testing.assert_close(calibration.scale.fuse(peak, detection), torch.tensor([0.1, 1.0, 0.85]))
    for weight, expected in ((0.0, [0.2, 1.0, 1.2]), (1.0, [0.0, 1.0, 0.5])):
        calibration.set_from(statistics(MAPS, DETECTION, [0, 0, 1]), weight)
        torch.testing.assert_close(calibration.scale.fuse(peak, detection), torch.tensor(expected))


def test_thresholds_by_hand():
    calibration = Calibration()
    mask = [[False, False], [False, False], [False, True]]
    calibration.set_from(statistics(MAPS, DETECTION, [0, 0, 1], mask), 0.0)
    # Fused scores are 0.2, 0.4 and 1; pixels 0.60 and, next lower, 0.48.
    assert calibration.thresholds.image == pytest.approx(0.7)
    assert calibration.thresholds.pixel == pytest.approx(0.54, abs=1e-5)
    assert calibration.is_set
    assert piecewise_linear(torch.tensor([0.7]), calibration.score_knots).item() == pytest.approx(0.5)


def test_unset_it_changes_nothing():
    calibration, values = Calibration(), torch.linspace(0, 1, 11)
    calibration.set_from(CalibrationStatistics(), 0.5)  # of no image
    assert not calibration.is_set
    assert calibration.thresholds == (0.5, 0.5, "", None)
    torch.testing.assert_close(piecewise_linear(values, calibration.map_knots), values)
    torch.testing.assert_close(piecewise_linear(values, calibration.score_knots), values)


@pytest.mark.parametrize(
    ("labels", "rate", "warning", "basis", "guaranteed"),
    [
        ([0, 0, 1], None, "", "the best F1 score of 2 normal and 1 anomalous images", None),
        ([0, 0, 0], None, "no anomalous validation image", "at most 25 %", 0.25),
        ([0, 0, 0], 0.5, "", "at most 50 %", 0.5),  # the second of three: a fourth exceeds it in two of four cases
        ([0, 0, 0], 0.1, "rate of 10 % takes 9 normal images, there are 3. The strictest threshold", "there are 3", 0.25),
        ([1, 1, 1], 0.1, "needs normal validation images and there are none", "of 0 normal and 3 anomalous images", None),
        (None, None, "", "none of 3 unlabelled images exceeds", None),
    ],
)
def test_rules_warnings_and_what_is_promised(caplog, labels, rate, warning, basis, guaranteed):
    calibration = Calibration()
    calibration.set_from(statistics(MAPS, DETECTION, labels, labels and [[False] * 2] * 3), 0.5, rate)
    assert warning in caplog.text
    assert bool(warning) == bool(caplog.text)
    assert basis in calibration.threshold_basis
    assert calibration.guaranteed_rate == guaranteed
    peaks = torch.tensor(MAPS).amax(1)
    fused = calibration.scale.fuse(peaks, torch.tensor(DETECTION))
    exceeding = {None: 1, 0.5: 1, 0.1: 3}[rate] if labels and (any(labels) or rate == 0.5) else 0
    assert int((fused > calibration.thresholds.image).sum()) == exceeding
    if labels == [0, 0, 0]:
        assert int((peaks > calibration.thresholds.pixel).sum()) == exceeding
        assert calibration.thresholds.image == pytest.approx(sorted(calibration.good_scores)[-1 - exceeding])


def test_a_rate_s_scores_are_fused_in_ranges_that_do_not_depend_on_the_images():
    scale, calibration = Calibration(), Calibration()
    scale.set_from(statistics([[0.2, 0.9], [0.1, 0.4]], [0.3, 0.7], [0, 1]), 0.5)
    calibration.set_from(statistics(MAPS, DETECTION, [0, 0, 1]), 0.5, 0.5, scale)
    assert torch.equal(calibration.map_range, scale.map_range)
    assert torch.equal(calibration.detection_range, scale.detection_range)
    # By the F1 score they are the images' own, as the method has it.
    calibration.set_from(statistics(MAPS, DETECTION, [0, 0, 1]), 0.5, None, scale)
    torch.testing.assert_close(calibration.map_range, torch.tensor([0.40, 0.60]))


@pytest.mark.parametrize("carried", [None, Calibration()])
def test_a_rate_without_ranges_of_the_adapters_takes_those_of_the_images(carried):
    calibration = Calibration()
    calibration.set_from(statistics(MAPS, DETECTION, [0, 0, 0]), 0.5, 0.0, carried)
    torch.testing.assert_close(calibration.map_range, torch.tensor([0.40, 0.60]))
    torch.testing.assert_close(calibration.detection_range, torch.tensor([0.50, 0.54]))
    # The third, in the ranges of the first two: peak (0.60 - 0.40) / 0.08 = 2.5, detection (0.54 - 0.50) / 0.02 = 2.
    assert calibration.thresholds.image == pytest.approx(2.25)
    assert calibration.threshold_basis.endswith("for the image threshold the bound is approximate")
    for weight in (0.0, 1.0):  # of one value no range changes the order
        calibration.set_from(statistics(MAPS, DETECTION, [0, 0, 0]), weight, 0.0, carried)
        assert calibration.threshold_basis.endswith("from 3 normal images")


@pytest.mark.parametrize(("count", "rate"), [(9, 0.1), (19, 0.05), (50, 0.05)])
def test_a_rate_holds_without_ranges_of_the_adapters_too(count, rate):
    """Mean over many calibrations, each tried on new images of the same source, whose scores are skewed."""
    rng, alarms = torch.Generator().manual_seed(0), []
    for _ in range(500):
        peak, detection = (torch.empty(count + 20).exponential_(generator=rng) for _ in range(2))
        seen = ImageStatistics(peak[:count] / 2, peak[:count], detection[:count], torch.zeros(count))
        threshold = false_alarm_threshold(fused_by_others(seen, 0.5), rate)
        ranges = torch.stack([seen.map_min.min(), seen.map_max.max()]), torch.stack(seen.detection.aminmax())
        alarms.append((image_score(peak[count:], detection[count:], *ranges, 0.5) > threshold).float().mean())
    assert rate / 3 < torch.stack(alarms).mean() <= rate


@pytest.mark.parametrize("labels", [[0, 1], [0, 0], [1, 1], None])
@pytest.mark.parametrize("count", [1, 2])
def test_identical_scores_everywhere(labels, count):
    calibration = Calibration()
    labels = None if labels is None else labels[:count]
    calibration.set_from(statistics([[0.5, 0.5]] * count, [0.5] * count, labels), 0.5)
    for points in (calibration.map_knots, calibration.score_knots):
        assert (points.diff() > 0).all()
    values = torch.tensor([0.2, 0.5, 0.8])
    assert (piecewise_linear(values, calibration.map_knots).diff() > 0).all()
    fused = calibration.scale.fuse(values, values)
    assert (piecewise_linear(fused, calibration.score_knots).diff() > 0).all()


def test_where_a_score_stands_among_those_of_good_images():
    calibration = Calibration()
    assert calibration.standing(0.9) is None
    calibration.set_from(statistics(MAPS, DETECTION, [0, 0, 1]), 0.5)
    assert calibration.good_scores == pytest.approx([0.1, 0.45])
    low, high = piecewise_linear(torch.tensor(calibration.good_scores), calibration.score_knots).tolist()
    assert [calibration.standing(score) for score in (low, (low + high) / 2, 0.5)] == [(0, 2), (1, 2), (2, 2)]
    assert str(calibration.standing(0.5)) == "100 % of 2 good photos score lower"
    calibration.set_from(statistics(MAPS, DETECTION, [0, 1, 1]), 0.5)
    assert calibration.standing(0.9) is None, "one good image has nothing to be compared with"


def test_a_damaged_score_of_a_good_image_is_refused():
    saved = Calibration().description()
    for wrong in ([0.1, "b"], [float("nan")], [1], "0.1"):
        with pytest.raises(ValueError, match="good_scores"):
            Calibration().restore_description(saved | {"good_scores": wrong}, "a file")
    restored = Calibration()
    restored.restore_description(saved | {"good_scores": [0.1, 0.2], "guaranteed_rate": 0.05}, "a file")
    assert (restored.good_scores, restored.guaranteed_rate) == ([0.1, 0.2], 0.05)
