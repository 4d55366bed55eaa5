"""Adding photos that were called anomalous wrongly to what a model knows of its target."""

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


@torch.no_grad()
def correct_memory(
    model: DPCLIPModel, photos: Tensor, normalise: object, anchors: Tensor, threshold: float, limit: int, seed: int
) -> None:
    """Take photos for normal: their tokens into the memory, and what was called anomalous in them among the corrections.

    Args:
        model: Has a memory.
        photos: ``(K, 3, H, W)`` in [0, 1], of the model's size.
        normalise: CLIP's normalisation.
        anchors: Text anchors ``(E, 2)`` of what they show.
        threshold: On the raw map.
        limit: Tokens of each tap that the memory keeps at most.
        seed: Of the thinning.
    """
    memory = model.memory
    assert memory is not None
    grid, step = model.backbone.grid, model.backbone.patch_size // SHIFTS
    called: list[tuple[Tensor, Tensor]] = []
    normal = memory.tokens
    for down in range(-(SHIFTS // 2), SHIFTS // 2 + 1):
        for right in range(-(SHIFTS // 2), SHIFTS // 2 + 1):
            images = normalise(torch.roll(photos, (step * down, step * right), (-2, -1)))  # type: ignore[operator]
            seen_here = model.evidence(images, anchors)
            tokens = seen_here.tokens
            maps = model.fused_map(seen_here.difference, memory(tokens), memory.share)
            share = functional.adaptive_avg_pool2d((maps > threshold).float().unsqueeze(1), grid)
            wrongly = share.flatten(1) > CALLED
            called.append((wrongly.nonzero()[:, 1], tokens.transpose(0, 1)[:, wrongly]))
            if down == right == 0:
                beside = functional.max_pool2d((share > 0).float(), 3, 1, 1).flatten(1) > 0
                normal = torch.cat([normal, tokens.transpose(0, 1)[:, ~beside].half()], dim=1)
    places, seen = torch.cat([each for each, _ in called]), torch.cat([each for _, each in called], dim=1)
    if len(places):
        found = Corrections(places, seen, len(photos))
        model.corrections = found if model.corrections is None else model.corrections.joined(found)
    count = int(memory.photos) + len(photos)
    model.memory = TokenMemory(thinned(normal, limit, seed), memory.share.item(), count).to(normal.device)
