"""Loss terms and feature decoupling by hand, at the edges that the published numbers do not reach."""

import math

import pytest
import torch

from anomalib_dpclip.method.losses import classification_loss, dice_loss, segmentation_loss
from anomalib_dpclip.method.prototypes import Prototypes, TokenDirections, token_directions


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


def test_no_image_with_a_known_mask_adds_nothing():
    logits = torch.zeros(0, 4, 4, requires_grad=True)
    loss = segmentation_loss(logits, torch.zeros(0, 4, 4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0


MASK = torch.tensor([[0.0, 1.0]])


def tap(normal, abnormal):
    return torch.tensor([[normal, abnormal]])


FIRST, SECOND = tap((1.0, 0.0), (0.6, 0.8)), tap((0.0, 1.0), (1.0, 0.0))


def test_directions_are_normalised_means_over_the_whole_batch():
    tokens = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0], [0.6, 0.8]]])
    directions = token_directions(tokens, torch.tensor([[0.0, 0.0, torch.nan], [1.0, 0.0, torch.nan]]))  # two count as neither
    torch.testing.assert_close(directions.normal, torch.tensor([2.0, 1.0]) / 5**0.5)
    torch.testing.assert_close(directions.abnormal, torch.tensor([0.0, 1.0]))
    assert directions.valid


@pytest.mark.parametrize("kind", [0.0, 1.0, torch.nan])
@pytest.mark.parametrize("initialised", [False, True])
def test_a_batch_of_one_kind_adds_and_moves_nothing(kind, initialised):
    prototypes = Prototypes(2, momentum=0.5)
    if initialised:
        prototypes.decoupling_loss([FIRST], MASK)
    before = {name: value.clone() for name, value in prototypes.state_dict().items()}
    tokens = SECOND.clone().requires_grad_()
    loss, directions = prototypes.decoupling_loss([tokens, tokens], torch.full_like(MASK, kind))
    loss.backward()
    prototypes.update(directions)
    assert loss.item() == 0
    assert not tokens.grad.any()
    assert all(torch.equal(value, before[name]) for name, value in prototypes.state_dict().items())


def test_opposite_directions_that_cancel_are_no_nan_and_state_is_all_in_buffers():
    prototypes, resumed = Prototypes(2, momentum=0.5), Prototypes(2, momentum=0.5)
    prototypes.decoupling_loss([FIRST], MASK)
    prototypes.update(TokenDirections(torch.tensor([-1.0, 0.0]), torch.tensor([0.6, 0.8]), torch.tensor(True)))
    assert prototypes.normal.isfinite().all()
    resumed.load_state_dict(prototypes.state_dict())
    assert prototypes.decoupling_loss([SECOND], MASK)[0] == resumed.decoupling_loss([SECOND], MASK)[0]


@pytest.mark.parametrize("momentum", [-0.1, 1.1, float("nan")])
def test_momentum_out_of_range(momentum):
    with pytest.raises(ValueError, match=r"prototype_momentum must lie in \[0, 1\]"):
        Prototypes(2, momentum)


def test_losses_and_directions_are_exact_under_autocast():
    torch.manual_seed(0)
    detection, anchors, label = torch.randn(4, 64), torch.randn(4, 64, 2), torch.tensor([0, 1, 1, 0])
    tokens, mask = torch.randn(2, 50, 16), (torch.rand(2, 50) < 0.3).float()

    def computed():
        return classification_loss(detection, anchors, label), token_directions(tokens, mask).normal

    expected = computed()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(computed(), expected, rtol=0, atol=0)
