"""Maps and scores by hand, where the published numbers say nothing: anchors of each image, ends, and half precision."""

import pytest
import torch
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


def test_similarity_difference_by_hand():
    tokens = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]])
    torch.testing.assert_close(text_margin(tokens, ANCHORS), torch.tensor([[-1.0, 1.0, 0.2]]))
    own = torch.stack([ANCHORS, ANCHORS.flip(-1)])  # each image's
    torch.testing.assert_close(text_margin(tokens[:, 2:].repeat(2, 1, 1), own), torch.tensor([[0.2], [-0.2]]))


def test_resize_puts_corners_on_corners():
    resized = resize_map(torch.tensor([[[0.0, 1.0], [2.0, 3.0]]]), (3, 3))
    torch.testing.assert_close(resized, torch.tensor([[[0.0, 0.5, 1.0], [1.0, 1.5, 2.0], [2.0, 2.5, 3.0]]]))


def test_the_ends_of_the_range():
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
