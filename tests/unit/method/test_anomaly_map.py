"""Maps and scores against numpy and scipy, and by hand."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from torch.nn.functional import normalize

from anomalib_dpclip.method.anomaly_map import (
    anomaly_map,
    blur_grid,
    detection_score,
    resize_map,
    segmentation_logits,
    tap_average,
    text_margin,
)

ANCHORS = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
"""Normal along the first axis, abnormal along the second: ``s_A - s_N`` is the second coordinate minus the first."""

BLURS = {"industrial": (7, 1.0), "medical": (9, 1.5)}


def blurred(grid, domain):
    """The blur of the paper, in numpy: a normalised Gaussian, the border reflected without its edge pixel repeated."""
    size, sigma = BLURS[domain]
    kernel = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * sigma**2))
    for axis in (0, 1):
        grid = correlate1d(grid, kernel / kernel.sum(), axis=axis, mode="mirror")
    return grid


def test_similarity_difference_by_hand():
    tokens = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]])
    torch.testing.assert_close(text_margin(tokens, ANCHORS), torch.tensor([[-1.0, 1.0, 0.2]]))
    own = torch.stack([ANCHORS, ANCHORS.flip(-1)])  # each image's
    torch.testing.assert_close(text_margin(tokens[:, 2:].repeat(2, 1, 1), own), torch.tensor([[0.2], [-0.2]]))


@pytest.mark.parametrize("domain", ["industrial", "medical"])
def test_blur_against_scipy(domain):
    torch.manual_seed(0)
    values = 2 * torch.rand(2, 8, 6) - 1
    expected = [blurred(image.double().numpy(), domain) for image in values]
    np.testing.assert_allclose(blur_grid(values, domain).numpy(), expected, atol=1e-6)
    even = torch.full((1, 6, 6), 0.25)
    torch.testing.assert_close(resize_map(blur_grid(even, domain), (24, 24)), torch.full((1, 24, 24), 0.25))


def test_taps_are_averaged():
    torch.manual_seed(0)
    taps = [normalize(torch.randn(1, 36, 2), dim=-1) for _ in range(3)]
    each = torch.stack([text_margin(tap, ANCHORS) for tap in taps])
    torch.testing.assert_close(tap_average(taps, ANCHORS, (6, 6)).flatten(1), each.mean(0))


def test_resize_puts_corners_on_corners():
    resized = resize_map(torch.tensor([[[0.0, 1.0], [2.0, 3.0]]]), (3, 3))
    torch.testing.assert_close(resized, torch.tensor([[[0.0, 0.5, 1.0], [1.0, 1.5, 2.0], [2.0, 2.5, 3.0]]]))


def test_segmentation_logits_are_the_softmax_of_the_two_similarities():
    tokens = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.8, 0.6]]])
    logits = segmentation_logits(tokens, ANCHORS, (2, 2), (2, 2))
    similarities = 100 * tokens.double().numpy().reshape(2, 2, 2)
    exponentials = np.exp(similarities - similarities.max(-1, keepdims=True))
    expected = exponentials[..., 1] / exponentials.sum(-1)
    np.testing.assert_allclose(torch.sigmoid(logits.double())[0].numpy(), expected, rtol=1e-4, atol=1e-30)


def test_anomaly_map_is_the_published_map_up_to_scale_and_offset():
    normal, abnormal = torch.tensor([0.30, 0.10, -0.2]), torch.tensor([0.25, 0.40, 0.9])  # one value a tap
    published = ((100 * abnormal + 1 - 100 * normal) / 2).sum()
    value = anomaly_map((abnormal - normal).mean())
    torch.testing.assert_close(200 * 3 * (value - 0.5) + 3 / 2, published)
    ends = torch.tensor([-2.0, 0.0, 2.0, -2.0000002, 2.0000002])
    assert anomaly_map(ends).tolist() == [0, 0.5, 1, 0, 1]


def test_detection_score_by_hand():
    detection = torch.tensor([[0.3, 0.4], [0.0, -1.0], [0.0, 0.0]])
    torch.testing.assert_close(detection_score(detection, ANCHORS), torch.tensor([0.7, 0.0, 0.5]))
    own = torch.stack([ANCHORS, ANCHORS.flip(-1), ANCHORS])
    torch.testing.assert_close(detection_score(detection, own), torch.tensor([0.7, 0.5, 0.5]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_leaves_maps_as_they_are(dtype):
    torch.manual_seed(0)
    tokens, anchors = normalize(torch.randn(1, 100, 64), dim=-1), normalize(torch.randn(64, 2), dim=0)

    def predict():
        logits = segmentation_logits(tokens, anchors, (10, 10), (40, 40))
        grid = blur_grid(tap_average([tokens], anchors, (10, 10)), "industrial")
        return logits, anomaly_map(resize_map(grid, (40, 40)))

    expected = predict()
    with torch.autocast("cpu", dtype):
        torch.testing.assert_close(predict(), expected, rtol=0, atol=0)
