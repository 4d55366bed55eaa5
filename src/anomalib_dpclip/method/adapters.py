"""Channel purification: the only layers that DP-CLIP learns.

Adapters after the first layers and projectors after the taps share one block, ``Linear -> GRN -> LeakyReLU``. GRN is Global
Response Normalization of ConvNeXt V2 (Woo et al., CVPR 2023, arXiv 2301.00808), from timm.
"""

from typing import Literal, get_args

import torch
from timm.layers.grn import GlobalResponseNorm
from torch import Tensor, nn
from torch.nn import functional

Pooling = Literal["tokens", "batch", "none"]
"""Axis over which the GRN of a layer adapter pools: an image's own tokens, the images of the batch, or no GRN at all."""


def unit(tokens: Tensor) -> Tensor:
    """L2-normalise tokens ``(B, L, C)``; one of zero norm has no direction and stays zero, in half precision too."""
    return functional.normalize(tokens, dim=-1, eps=max(1e-12, torch.finfo(tokens.dtype).tiny))


class ChannelPurification(nn.Module):
    """``Linear(bias=False) -> GRN -> LeakyReLU(0.01)``, the last if asked for, over tokens.

    Pooling over ``"tokens"`` makes an image's result independent of its batch; ``"batch"`` reproduces the published
    implementation, whose layer adapters are fed ``(L, B, C)``; ``"none"`` leaves GRN out.
    """

    def __init__(self, in_features: int, out_features: int, *, activation: bool, pooling: Pooling) -> None:
        super().__init__()
        if pooling not in get_args(Pooling):
            raise ValueError(f"grn_pooling must be one of {', '.join(get_args(Pooling))}, not {pooling!r}")
        self.pools_over_batch = pooling == "batch"
        self.fc = nn.Linear(in_features, out_features, bias=False)
        self.grn = nn.Identity() if pooling == "none" else GlobalResponseNorm(out_features)
        self.activation = nn.LeakyReLU(0.01) if activation else nn.Identity()
        nn.init.xavier_uniform_(self.fc.weight)

    def reset_parameters(self) -> None:
        """Draw the weights anew, with as many random numbers as the constructor."""
        self.fc.reset_parameters()
        nn.init.xavier_uniform_(self.fc.weight)
        for parameter in self.grn.parameters():
            nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor) -> Tensor:
        """Purify tokens ``(B, L, C_in)`` into ``(B, L, C_out)``."""
        # timm's layer pools over axes 1 and 2 of (N, H, W, C): a token sequence is an image of width 1.
        projected = self.fc(tokens).unsqueeze(2)
        projected = self.grn(projected.transpose(0, 1)).transpose(0, 1) if self.pools_over_batch else self.grn(projected)
        return self.activation(projected.squeeze(2))


class LayerAdapter(ChannelPurification):
    """Residual adapter after a frozen layer of width C: ``F' = w a ||F|| / ||a|| + (1 - w) F`` with ``a`` the purified F."""

    def __init__(self, width: int, *, weight: float = 0.1, pooling: Pooling = "tokens") -> None:
        super().__init__(width, width, activation=True, pooling=pooling)
        self.weight = weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Adapt all tokens ``(B, L, C)`` of a layer, class token included."""
        adapted = super().forward(tokens)
        adapted = unit(adapted) * tokens.norm(dim=-1, keepdim=True)
        return self.weight * adapted + (1 - self.weight) * tokens


class Projector(ChannelPurification):
    """Map from a tap to the joint space, with unit tokens. Its GRN always pools over tokens; published ones do not activate."""

    def __init__(self, width: int, embed_dim: int, *, activation: bool = False, use_grn: bool = True) -> None:
        super().__init__(width, embed_dim, activation=activation, pooling="tokens" if use_grn else "none")

    def forward(self, tokens: Tensor) -> Tensor:
        """Project tokens ``(B, L, C)`` to unit vectors ``(B, L, E)``."""
        return unit(super().forward(tokens))
