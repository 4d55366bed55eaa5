"""Adding photos that were called anomalous wrongly to what a model knows of its target."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from anomalib_dpclip.method.corrections import Corrections
from anomalib_dpclip.method.memory import TokenMemory
from anomalib_dpclip.method.torch_model import DPCLIPModel
from anomalib_dpclip.model.reference_memory import thinned

SHIFTS = 3
"""So many times along either axis a photo is looked at, shifted by parts of a patch: what comes again is off by some pixels."""


CALLED = 0.5
"""Share of a token's pixels that are called anomalous, above which it is a correction's."""


class Correction(NamedTuple):
    """Of a photo: places and tokens ``(T, N, C)`` that were called anomalous, and tokens ``(T, M, C)`` that were not."""

    places: Tensor
    wrong: Tensor
    normal: Tensor


@torch.no_grad()
def correct_memory(
    model: DPCLIPModel,
    memory: TokenMemory,
    photos: Tensor,
    normalise: object,
    anchors: Tensor,
    threshold: float,
    limit: int,
    seed: int,
) -> None:
    """Take photos for normal: their tokens into the memory, and what was called anomalous in them among the corrections.

    Args:
        model: What is corrected.
        memory: Its own.
        photos: ``(K, 3, H, W)`` in [0, 1], of the model's size.
        normalise: CLIP's normalisation.
        anchors: Text anchors ``(E, 2)`` of what they show.
        threshold: On the raw map.
        limit: Tokens of each tap that the memory keeps at most.
        seed: Of the thinning.
    """
    found = [_correction(model, memory, photo, normalise, anchors, threshold) for photo in photos]
    normal = torch.cat([memory.tokens, *(each.normal.half() for each in found)], dim=1)
    model.memory = TokenMemory(thinned(normal, limit, seed), memory.share.item(), int(memory.photos) + len(photos))
    places = torch.cat([each.places for each in found])
    if len(places):
        new = Corrections(places, torch.cat([each.wrong for each in found], dim=1), len(photos))
        model.corrections = new if model.corrections is None else model.corrections.joined(new)


def _correction(
    model: DPCLIPModel, memory: TokenMemory, photo: Tensor, normalise: object, anchors: Tensor, threshold: float
) -> Correction:
    step, most = model.backbone.patch_size // SHIFTS, SHIFTS // 2
    offsets = [(step * down, step * right) for down in range(-most, most + 1) for right in range(-most, most + 1)]
    shifted = torch.stack([torch.roll(photo, offset, (-2, -1)) for offset in offsets])
    seen = model.evidence(normalise(shifted), anchors)  # type: ignore[operator]
    tokens = seen.tokens
    maps = model.fused_map(seen.difference, memory(tokens), memory.share)
    share = functional.adaptive_avg_pool2d((maps > threshold).float().unsqueeze(1), model.backbone.grid)
    wrong = share.flatten(1) > CALLED
    unshifted = offsets.index((0, 0))
    beside = functional.max_pool2d((share[unshifted] > 0).float(), 3, 1, 1).flatten() > 0
    return Correction(wrong.nonzero()[:, 1], tokens.transpose(0, 1)[:, wrong], tokens[unshifted][:, ~beside])
