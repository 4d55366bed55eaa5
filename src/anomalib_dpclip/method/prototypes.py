"""Momentum-guided feature decoupling of DP-CLIP: L_dec, and the global prototypes P_N and P_A of normal and abnormal tokens."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional

from anomalib_dpclip.files.precision import full_precision


class TokenDirections(NamedTuple):
    """Unit mean directions ``(E,)`` of a batch's normal and abnormal tokens at one tap; valid if it had both kinds."""

    normal: Tensor
    abnormal: Tensor
    valid: Tensor


def token_directions(tokens: Tensor, token_mask: Tensor) -> TokenDirections:
    """Mean of the normal and of the abnormal tokens over the whole (global) batch, L2-normalised; zero where there are none.

    Tokens are unit vectors ``(B, L, E)``, the mask ``(B, L)`` is 1 where one is abnormal, 0 where normal, NaN where neither.
    """
    abnormal, normal = (token_mask == 1).float(), (token_mask == 0).float()
    with full_precision(tokens):
        sums = torch.stack([torch.einsum("ble,bl->e", tokens.float(), kind) for kind in (normal, abnormal)])
    counts = torch.stack([normal.sum(), abnormal.sum()])
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        # Differentiable: its backward sums the ranks' gradients and DDP divides by their number, which together is the
        # gradient of the global batch. A rank without abnormal tokens needs no special case.
        sums, counts = all_reduce(sums), all_reduce(counts)
    # normalize(sum) is normalize(mean), without a division by a count of zero.
    directions = functional.normalize(sums, dim=-1)
    return TokenDirections(directions[0], directions[1], (counts > 0).all())


class Prototypes(nn.Module):
    """Global prototypes ``P_N`` and ``P_A`` ``(E,)``, unit vectors, as buffers, so that a resumed run goes on with them.

    Nothing here reads a tensor's value on the host, so a training step never waits for the device. `momentum`, ``m`` of the
    update, must lie in [0, 1].
    """

    normal: Tensor
    abnormal: Tensor
    initialised: Tensor

    def __init__(self, embed_dim: int, momentum: float = 0.999) -> None:
        super().__init__()
        if not 0 <= momentum <= 1:
            raise ValueError(f"prototype_momentum must lie in [0, 1], not {momentum}")
        self.momentum = momentum
        self.register_buffer("normal", torch.zeros(embed_dim))
        self.register_buffer("abnormal", torch.zeros(embed_dim))
        self.register_buffer("initialised", torch.tensor(False))

    def decoupling_loss(self, taps: Sequence[Tensor], token_mask: Tensor) -> tuple[Tensor, TokenDirections]:
        """``L_dec``, summed over the taps: ``((a . P_N)^2 + (n . P_A)^2) / 2``, at the very first tap ``(a . n)^2``.

        The first batch with both kinds of tokens sets the prototypes from its first tap; its next taps already use them.
        Arguments are those of `token_directions`, a tensor of tokens a tap.

        Returns:
            The scalar loss, zero for a batch without both kinds of tokens, and the last tap's directions, for `update`.
        """
        directions = [token_directions(tokens, token_mask) for tokens in taps]
        first = directions[0]
        initialised = self.initialised.clone()  # autograd keeps it for the backward pass, the buffer changes below
        normal = torch.where(initialised, self.normal, first.normal.detach())
        abnormal = torch.where(initialised, self.abnormal, first.abnormal.detach())
        losses = torch.stack([((d.abnormal @ normal) ** 2 + (d.normal @ abnormal) ** 2) / 2 for d in directions])
        first_use = torch.cat([(first.abnormal @ first.normal).square().unsqueeze(0), losses[1:]])
        loss = torch.where(initialised, losses, first_use).sum()
        with torch.no_grad():
            keep = first.valid | initialised
            self.normal.copy_(torch.where(keep, normal, self.normal))
            self.abnormal.copy_(torch.where(keep, abnormal, self.abnormal))
            self.initialised.copy_(keep)
        # A product instead of a branch: the loss of a batch without both kinds is zero and has zero gradient.
        return loss * first.valid, directions[-1]

    @torch.no_grad()
    def update(self, directions: TokenDirections) -> None:
        """``P := normalize(m P + (1 - m) d)`` with the last tap's directions; a batch without both kinds moves nothing."""
        for prototype, direction in ((self.normal, directions.normal), (self.abnormal, directions.abnormal)):
            moved = functional.normalize(self.momentum * prototype + (1 - self.momentum) * direction, dim=-1)
            prototype.copy_(torch.where(directions.valid, moved, prototype))

    @property
    def cosine(self) -> Tensor:
        """Cosine between the two prototypes, in [-1, 1]: how far the decoupling has got."""
        return self.normal @ self.abnormal
