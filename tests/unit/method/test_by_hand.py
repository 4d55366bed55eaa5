"""Channel purification, maps, losses and prototypes by hand, where the published numbers say nothing."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from anomalib_dpclip.method.adapters import ChannelPurification, LayerAdapter, unit
from anomalib_dpclip.method.anomaly_map import anomaly_map, blur_grid, resize_map, segmentation_logits, tap_average
from anomalib_dpclip.method.losses import classification_loss, dice_loss, segmentation_loss
from anomalib_dpclip.method.prototypes import Prototypes, TokenDirections, token_directions


def grn(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """ConvNeXt V2 (arXiv 2301.00808), equations 1 to 3, over tokens (B, L, C), in double precision."""
    energy = np.sqrt((x**2).sum(axis=1, keepdims=True))
    return x + bias + weight * x * (energy / (energy.mean(axis=-1, keepdims=True) + 1e-6))


@pytest.mark.parametrize("pooling", ["tokens", "batch"])
def test_purification_against_numpy(pooling):
    torch.manual_seed(0)
    block, tokens = ChannelPurification(3, 5, activation=True, pooling=pooling), torch.randn(4, 7, 3)
    for parameter in block.grn.parameters():
        torch.nn.init.normal_(parameter)
    weight, bias = (value.detach().double().numpy() for value in (block.grn.weight, block.grn.bias))
    x = tokens.double().numpy() @ block.fc.weight.detach().double().numpy().T
    x = grn(x, weight, bias) if pooling == "tokens" else grn(x.swapaxes(0, 1), weight, bias).swapaxes(0, 1)
    np.testing.assert_allclose(block(tokens).detach().numpy(), np.where(x > 0, x, 0.01 * x), rtol=1e-4, atol=1e-5)
    assert torch.allclose(block(tokens)[:1], block(tokens[:1]), atol=1e-6) == (pooling == "tokens"), "sees one image, or all"


def test_initialisation_and_without_grn():
    block = ChannelPurification(300, 200, activation=True, pooling="tokens")
    bound = math.sqrt(6 / 500)  # xavier-uniform
    assert 0.98 * bound < block.fc.weight.abs().max().item() <= bound
    assert not block.grn.weight.any()
    assert not block.grn.bias.any()
    linear = ChannelPurification(3, 5, activation=False, pooling="none")
    assert set(linear.state_dict()) == {"fc.weight"}
    tokens = torch.randn(2, 4, 3)
    torch.testing.assert_close(linear(tokens), tokens @ linear.fc.weight.T)


@pytest.mark.parametrize("zero", ["token", "matrix"])
def test_a_token_without_direction_is_no_nan(zero):
    layer = LayerAdapter(4)
    tokens = 100 * torch.randn(1, 3, 4)
    if zero == "token":
        tokens[0, 1] = 0
    else:
        torch.nn.init.zeros_(layer.fc.weight)
    tokens.requires_grad_()
    adapted = layer(tokens)
    torch.testing.assert_close(adapted[0, 1], 0.9 * tokens[0, 1] if zero == "matrix" else torch.zeros(4))
    adapted.sum().backward()
    assert all(value.grad.isfinite().all() for value in (tokens, *layer.parameters()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_unit(dtype):
    tokens = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]], dtype=dtype)
    torch.testing.assert_close(unit(tokens), torch.tensor([[[0.6, 0.8], [0.0, 0.0]]], dtype=dtype))


def test_the_ends_of_the_range():
    ends = torch.tensor([-2.0, 0.0, 2.0, -2.0000002, 2.0000002])
    assert anomaly_map(ends).tolist() == [0, 0.5, 1, 0, 1]


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
