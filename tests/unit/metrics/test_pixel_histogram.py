"""The pixel histogram and its metrics against exact ones: scikit-learn, anomalib and the published evaluation."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.metrics import AUPRO, Evaluator
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from anomalib_dpclip.metrics import (
    PixelCounts,
    PixelHistogram,
    PixelMetric,
    aupro,
    auroc,
    average_precision,
    count_pixels,
    f1_max,
    f1_threshold,
    field_metrics,
)
from anomalib_dpclip.metrics.pixel_histogram import BINS, MOST_REGIONS, REGION_UNIT


@pytest.fixture
def blobs():
    """Six maps that fill 5 % of [0, 1], as raw DP-CLIP maps do, with blobs as ground truth, two images without any."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(6, 1, 64, 64, generator=generator)
    smooth = torch.nn.functional.avg_pool2d(noise, 9, 1, 4)[:, 0]
    masks = smooth > smooth.flatten(1).quantile(0.97, dim=1)[:, None, None]
    masks[4:] = False
    scores = 0.5 + 0.05 * (0.3 * smooth + 0.7 * torch.rand(6, 64, 64, generator=generator))
    return scores, masks


@pytest.mark.parametrize(("levels", "tolerance"), [(None, 1e-4), (5, 1e-12)])
def test_ranking_figures_match_scikit_learn_with_and_without_ties(blobs, levels, tolerance):
    scores, masks = blobs
    if levels:
        scores = torch.randint(0, levels, masks.shape, generator=torch.Generator().manual_seed(1)) / (levels - 1)
    counts, pair = count_pixels(scores, masks), (masks.flatten(), scores.flatten())
    assert auroc(counts) == pytest.approx(roc_auc_score(*pair), abs=tolerance)
    assert average_precision(counts) == pytest.approx(average_precision_score(*pair), abs=tolerance)
    precision, recall, _ = precision_recall_curve(*pair)
    best = (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()
    assert f1_max(counts) == pytest.approx(best, abs=tolerance)


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_aupro_matches_anomalib_s(blobs, limit):
    scores, masks = blobs
    reference = AUPRO(fields=["anomaly_map", "gt_mask"], fpr_limit=limit)
    reference.update(ImageBatch(image=torch.zeros(6, 3, 64, 64), anomaly_map=scores, gt_mask=masks))
    assert aupro(count_pixels(scores, masks), limit) == pytest.approx(float(reference.compute()), abs=1e-3)


def test_regions_join_at_corners_and_never_across_images():
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[0, 0, 0] = masks[0, 1, 1] = True  # touching at a corner: one region of two
    masks[0, 3, 3] = True  # a region of one
    masks[1, 0] = True  # in another image: a region of four
    counts = count_pixels(torch.full((2, 4, 4), 0.5), masks)
    assert int(counts.regions) == 3
    assert int(counts.region_share.sum()) == 3 * REGION_UNIT


@pytest.mark.parametrize("bins_apart", [1, 5])
def test_thresholds_separate_scores_on_bin_edges(bins_apart):
    low, high = 0.5, 0.5 + bins_apart / BINS
    scores = torch.tensor([[[low, low, high, high]]])
    counts = count_pixels(scores, torch.tensor([[[0, 0, 1, 1]]]))
    assert (scores > f1_threshold(counts)).tolist() == [[[False, False, True, True]]]


@pytest.mark.parametrize("anomalous", [False, True])
def test_one_kind_of_pixel_leaves_the_figures_undefined(anomalous):
    counts = count_pixels(torch.rand(1, 4, 4), torch.full((1, 4, 4), anomalous))
    for metric in (auroc, average_precision, aupro, f1_max, f1_threshold):
        assert math.isnan(metric(counts))


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(ValueError, match=r"anomaly maps must lie in \[0, 1\].*post-processor"):
        count_pixels(torch.full((1, 2, 2), 1.01), torch.zeros(1, 2, 2))
    with pytest.raises(ValueError, match="share one shape"):
        count_pixels(torch.zeros(1, 2, 2), torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match="fpr_limit"):
        aupro(count_pixels(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)), 0.0)


def test_batches_add_up_and_the_state_is_small(blobs):
    scores, masks = blobs
    histogram = PixelHistogram()
    for image, mask in zip(scores.split(2), masks.split(2), strict=True):
        histogram.update(image, mask)
    for batched, whole in zip(histogram.compute(), count_pixels(scores, masks), strict=True):
        assert torch.equal(batched, whole)
    assert sum(getattr(histogram, name).nbytes for name in histogram._defaults) <= 24 * 2**20 + 8


def test_two_processes_measure_what_one_does(blobs):
    scores, masks = blobs
    here, there = PixelHistogram(), PixelHistogram()
    here.update(scores[:4], masks[:4])
    there.update(scores[4:], masks[4:])  # no anomaly in its part
    # What all-gather would bring from the other process, state by state.
    incoming = iter([getattr(there, name) for name in there._defaults])
    here.dist_sync_fn = lambda state, group: [state, next(incoming)]
    here.distributed_available_fn = lambda: True
    for summed, whole in zip(here.compute(), count_pixels(scores, masks), strict=True):
        assert torch.equal(summed, whole)
    assert int(here.normal.sum()) == int((~masks[:4]).sum())  # its own state is what it was


FUNCTIONS = {"pixel_AUROC": auroc, "pixel_AP": average_precision, "pixel_AUPRO": aupro, "pixel_F1Max": f1_max}


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda evaluator: pickle.loads(pickle.dumps(evaluator))])
@pytest.mark.parametrize("chosen", [list(FUNCTIONS), ["pixel_AUPRO"], ["pixel_AP", "pixel_AUROC"]])
def test_any_choice_of_the_metrics_shares_one_histogram_and_survives_copying(blobs, chosen, duplicate):
    every = {metric.name: metric for metric in field_metrics()}
    metrics = duplicate(Evaluator(test_metrics=[every[name] for name in chosen])).test_metrics
    expected = [FUNCTIONS[name](count_pixels(*blobs)) for name in chosen]
    for _ in range(2):  # and again after a reset, of any one of them
        for scores, masks in zip(*(each.split(3) for each in blobs), strict=True):
            for metric in metrics:
                metric.update(ImageBatch(image=torch.zeros(3, 3, 64, 64), anomaly_map=scores, gt_mask=masks))
        assert [float(metric.compute()) for metric in metrics] == pytest.approx(expected, rel=1e-6)
        assert int(metrics[0].histogram.normal.sum()) == int((~blobs[1]).sum())  # each batch once
        metrics[-1].reset()  # which resets them all


def test_many_regions_do_not_overflow(caplog):
    # 2^24 regions of one score, half of them above all normal pixels: what a long run over speckled masks adds up to.
    def counts(regions):
        normal, anomalous, region_share = torch.zeros(3, BINS, dtype=torch.int64)
        normal[BINS // 2] = 100
        anomalous[[0, -1]] = regions // 2
        region_share[[0, -1]] = regions // 2 * REGION_UNIT
        return PixelCounts(normal, anomalous, region_share, torch.tensor(regions))

    # Overlap a half from no false alarm on.
    for regions in (2, 2**24, 2**26):
        assert aupro(counts(regions)) == pytest.approx(0.5)
    assert math.isnan(aupro(counts(2)._replace(regions=torch.tensor(MOST_REGIONS + 1))))
    assert "more than" in caplog.text


def test_images_and_batches_without_masks_are_left_out(blobs):
    scores, masks = blobs
    has_mask = torch.arange(len(scores)) % 2 == 0
    metric = PixelMetric("pixel_AUROC", auroc)
    metric.update(ImageBatch(image=torch.zeros(6, 3, 64, 64), anomaly_map=scores))
    assert metric.compute().isnan()
    for known in (has_mask, torch.zeros_like(has_mask)):
        metric.histogram.update(scores, masks, known)
    for one, other in zip(metric.histogram.compute(), count_pixels(scores[::2], masks[::2]), strict=True):
        assert torch.equal(one, other)


def test_checkpoints_hold_nothing_of_the_metrics():
    assert Evaluator(test_metrics=field_metrics()).state_dict() == {}


@pytest.mark.parametrize("pooling", ["batch", "tokens"])
@pytest.mark.parametrize("domain", ["industrial", "medical"])
def test_published_evaluation_is_met(parity, pooling, domain):
    published = parity.meta[f"metrics/{pooling}/{domain}"]
    maps = parity[f"predict/{pooling}/{domain}/map"]
    counts = count_pixels((maps - maps.min()) / (maps.max() - maps.min()), parity["in/masks"].squeeze(1))
    # The published AUPRO samples 200 thresholds only.
    tolerances = {"AUC": (auroc, 0.0051), "AP": (average_precision, 0.0051), "F1 max": (f1_max, 0.0051), "AUPRO": (aupro, 1.5)}
    for name, (metric, tolerance) in tolerances.items():
        assert 100 * metric(counts) == pytest.approx(published[f"pixel {name}"], abs=tolerance), name
