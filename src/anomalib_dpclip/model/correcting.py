"""Adding photos that were called anomalous wrongly to what a model knows of its target."""

import statistics
import sys
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
    model: DPCLIPModel, photos: Tensor, normalise: object, anchors: Tensor, threshold: float, limit: int, seed: int
) -> float:
    """Take photos for normal: their tokens into the memory, and what was called anomalous in them among the corrections.

    Args:
        model: Has a memory.
        photos: ``(K, 3, H, W)`` in [0, 1], of the model's size.
        normalise: CLIP's normalisation.
        anchors: Text anchors ``(E, 2)`` of what they show.
        threshold: On the raw map.
        limit: Tokens of each tap that the memory keeps at most.
        seed: Of the thinning.

    Returns:
        Median of the peaks of their maps, each judged by the others and what was known before; 0 of a single one.
    """
    memory, before = model.memory, model.corrections
    assert memory is not None
    found = [_correction(model, photo, normalise, anchors, threshold) for photo in photos]

    def know(corrections: list[Correction], most: int) -> None:
        normal = torch.cat([memory.tokens, *(each.normal.half() for each in corrections)], dim=1)
        count = int(memory.photos) + len(corrections)
        model.memory = TokenMemory(thinned(normal, most, seed), memory.share.item(), count).to(normal.device)
        model.corrections = before
        places = torch.cat([each.places for each in corrections]) if corrections else photos.new_empty(0)
        if len(places):
            new = Corrections(places, torch.cat([each.wrong for each in corrections], dim=1), len(corrections))
            model.corrections = new if before is None else before.joined(new)

    peaks = []
    for index, photo in enumerate(photos if len(photos) > 1 else []):
        know(found[:index] + found[index + 1 :], sys.maxsize)  # thinning each time would take long, and change little
        peaks.append(model.predict(normalise(photo[None]), anchors).anomaly_map.max().item())  # type: ignore[operator]
    know(found, limit)
    return statistics.median(peaks) if peaks else 0.0


def _correction(model: DPCLIPModel, photo: Tensor, normalise: object, anchors: Tensor, threshold: float) -> Correction:
    memory = model.memory
    assert memory is not None
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
