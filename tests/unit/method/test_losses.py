"""Loss terms by hand, at the edges that the published numbers do not reach."""

import math

import pytest
import torch

from anomalib_dpclip.method.losses import classification_loss, dice_loss, segmentation_loss


@pytest.mark.parametrize("sure", [200.0, -200.0])
def test_the_surest_mistake_has_a_finite_loss_and_gradient(sure):
    logits = torch.full((1, 2, 2), sure, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((1, 2, 2), sure < 0))
    loss.backward()
    # Focal: p_t = 2e-5. Dice: nothing of four pixels is found, in either class.
    assert loss.item() == pytest.approx(-((1 - 2e-5) ** 2) * math.log(2e-5) + 2 * (1 - 1 / (4 + 1)), rel=1e-4)
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    ("probability", "target", "expected"),
    [
        ([1, 1, 1, 1], [0, 0, 0, 0], 1 - 1 / 5),
        ([0, 0, 0, 0], [0, 0, 0, 0], 0),
        ([0.5, 0.5, 0, 1], [1, 0, 0, 1], 1 - (2 * 1.5 + 1) / (2 + 2 + 1)),
    ],
)
def test_dice_loss_by_hand(probability, target, expected):
    probability, target = torch.tensor([[probability]], dtype=torch.float), torch.tensor([[target]])
    assert dice_loss(probability, target).item() == pytest.approx(expected, abs=1e-6)


def test_dice_loss_is_a_mean_over_images():
    probability = torch.tensor([[[1.0, 1.0]], [[0.0, 0.0]]])
    # 0 for the first image, 1 - 1 / 3 for the second; pooled over the batch it would be 1 - 5 / 7.
    assert dice_loss(probability, torch.ones(2, 1, 2)).item() == pytest.approx(1 / 3)


def test_no_image_with_a_known_mask_adds_nothing():
    logits = torch.zeros(0, 4, 4, requires_grad=True)
    loss = segmentation_loss(logits, torch.zeros(0, 4, 4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0


def test_classification_loss_is_exact_under_autocast():
    torch.manual_seed(0)
    detection, anchors, label = torch.randn(4, 64), torch.randn(4, 64, 2), torch.tensor([0, 1, 1, 0])
    expected = classification_loss(detection, anchors, label)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(classification_loss(detection, anchors, label), expected, rtol=0, atol=0)
