"""Channel purification against numpy and by hand."""

import math

import numpy as np
import pytest
import torch

from anomalib_dpclip.method.adapters import ChannelPurification, LayerAdapter, Projector, unit


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


def test_purification_by_hand():
    block = ChannelPurification(2, 2, activation=False, pooling="tokens")
    torch.nn.init.eye_(block.fc.weight)
    torch.nn.init.ones_(block.grn.weight)
    # Norms over the tokens are (5, 0), their mean is 2.5: the first channel counts three times, (1 + 5 / 2.5).
    tokens = torch.tensor([[[3.0, 0.0], [4.0, 0.0]]])
    torch.testing.assert_close(block(tokens), torch.tensor([[[9.0, 0.0], [12.0, 0.0]]]), rtol=1e-5, atol=0)


def test_without_grn_there_is_only_the_linear_layer():
    block = ChannelPurification(3, 5, activation=False, pooling="none")
    assert set(block.state_dict()) == {"fc.weight"}
    tokens = torch.randn(2, 4, 3)
    torch.testing.assert_close(block(tokens), tokens @ block.fc.weight.T)


def test_initialisation():
    block = ChannelPurification(300, 200, activation=True, pooling="tokens")
    bound = math.sqrt(6 / 500)  # xavier-uniform
    assert 0.98 * bound < block.fc.weight.abs().max().item() <= bound
    assert not block.grn.weight.any()
    assert not block.grn.bias.any()


@pytest.mark.parametrize(
    ("matrix", "token", "expected"),
    [
        # (3, 4) becomes (28, 21), at the token's own length 5 that is (4, 3): 0.1 (4, 3) + 0.9 (3, 4).
        ([[0.0, 7.0], [7.0, 0.0]], [3.0, 4.0], [3.1, 3.9]),
        # Both channels shrink to a hundredth in the LeakyReLU, the direction and so the rescaled token stay.
        ([[1.0, 0.0], [0.0, 1.0]], [-3.0, -4.0], [-3.0, -4.0]),
    ],
)
def test_layer_adapter_by_hand(matrix, token, expected):
    layer = LayerAdapter(2, weight=0.1)
    layer.fc.weight.data = torch.tensor(matrix)
    torch.testing.assert_close(layer(torch.tensor([[token]])), torch.tensor([[expected]]))
    layer.weight = 0.0
    assert torch.equal(layer(torch.tensor([[token]])), torch.tensor([[token]]))


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


@pytest.mark.parametrize("activation", [False, True])
def test_projector(activation):
    projector, tokens = Projector(6, 4, activation=activation), torch.randn(2, 5, 6)
    direction = tokens @ projector.fc.weight.T
    direction = torch.where(direction > 0, direction, 0.01 * direction) if activation else direction
    torch.testing.assert_close(projector(tokens), direction / direction.norm(dim=-1, keepdim=True))
    assert set(projector.state_dict()) == {"fc.weight", "grn.weight", "grn.bias"}
