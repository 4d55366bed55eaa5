"""What one look at images says of them: by the text, token by token and of the whole image, and for a memory."""

from typing import NamedTuple

from torch import Tensor


class TowerOutput(NamedTuple):
    """Images in the joint space.

    Attributes:
        taps: Unit tokens ``(B, L, E)``, one tensor a tap.
        score: Of the whole image ``(B,)``, in [0, 1].
        tokens: The taps' tokens ``(B, L, C)`` before the projectors.
    """

    taps: list[Tensor]
    score: Tensor
    tokens: list[Tensor]


class Evidence(NamedTuple):
    """What text and target can be asked of images.

    Attributes:
        difference: The text's blurred similarity differences ``(B, rows, columns)``, in [-2, 2].
        tokens: `anomalib_dpclip.method.memory.centred_tokens` ``(B, T, L, C)``, to be compared with those of the target.
        means: What those lack ``(B, T, C)``.
        score: Of the whole image ``(B,)``, in [0, 1].
    """

    difference: Tensor
    tokens: Tensor
    means: Tensor
    score: Tensor
