"""From photos of what the target should look like to a memory, its weight, and what scores to expect."""

from collections.abc import Iterator

import torch
from anomalib.data.utils.generators import PerlinAnomalyGenerator
from anomalib.models.components.sampling import KCenterGreedy
from torch import Tensor
from torch.nn import functional

from anomalib_dpclip.files.seeded import seeded
from anomalib_dpclip.method.evidence import Evidence
from anomalib_dpclip.method.evidence_fusion import memory_weight
from anomalib_dpclip.method.memory import TokenMemory, tap_mean_distance
from anomalib_dpclip.method.torch_model import DPCLIPModel
from anomalib_dpclip.post_processing.calibration_statistics import CalibrationStatistics

MEMORY_TOKENS = 68_450
"""Tokens that a memory keeps of each tap: 50 photos of ViT-L at 518 pixels, 37 x 37 tokens each."""

JUDGED_PHOTOS = 16
"""So many photos are judged by the others, however many there are: each costs as much as a comparison with the memory."""

JUDGED = "the photos that show the target, each judged by the others"
"""What the images of the calibration are of."""

DEFECTS = 2
"""Synthetic defects put into each judged photo."""


@torch.no_grad()
def build_memory(
    model: DPCLIPModel, photos: Tensor, normalise: object, anchors: Tensor, limit: int, seed: int
) -> tuple[TokenMemory, CalibrationStatistics]:
    """Memory of photos, and the scores of each photo, as it is and damaged, that the others give it.

    Args:
        model: Sees the photos.
        photos: ``(K, 3, H, W)`` in [0, 1], of the model's size.
        normalise: CLIP's normalisation.
        anchors: Text anchors ``(E, 2)`` of what they show.
        limit: Tokens of each tap at most.
        seed: Of the synthetic defects and of the thinning.

    Returns:
        The memory, and statistics that a calibration can be set from.
    """

    def evidence(images: Tensor) -> Evidence:
        seen = [model.evidence(normalise(part), anchors) for part in images.split(8)]  # type: ignore[operator]
        return Evidence(*(torch.cat(parts) for parts in zip(*seen, strict=True)))

    judged = photos[:JUDGED_PHOTOS]
    damaged, masks = _damage(judged, seed)
    if model.ignored is not None:
        masks &= model.ignored.judged
    kept = model.judged_tokens  # others are remembered of no photo, and tell nothing of the two evidences
    clean, corrupted = evidence(photos), evidence(damaged)
    # Its own mirror images stand in for the other photos where there is only one.
    others = evidence(torch.cat([photos.flip(-1), photos.flip(-2), photos.flip(-1, -2)])) if len(photos) == 1 else None
    distances, damaged_distances = [], []
    for index in range(len(judged)):
        known = _memory_without(clean.tokens, index, kept) if others is None else _as_memory(others.tokens, kept)
        distances.append(tap_mean_distance(clean.tokens[index, None], known))
        damaged_distances.append(tap_mean_distance(corrupted.tokens[index :: len(judged)], known))
    distance = torch.cat(distances)
    damaged_distance = torch.stack(damaged_distances, dim=1).flatten(0, 1)  # defect by defect, as `_damage` orders them
    normal = _pairs(clean.difference[: len(judged)], distance, model, kept)
    anomalous = _pairs(corrupted.difference, damaged_distance, model, kept)
    token_masks = functional.adaptive_avg_pool2d(masks.float().unsqueeze(1), model.backbone.grid).flatten(1)[:, kept].flatten()
    share = memory_weight(normal, anomalous[token_masks > 0.5])
    memory = TokenMemory(thinned(_as_memory(clean.tokens, kept), limit, seed), share, len(photos))
    shown = masks.flatten(1).any(1)  # a defect that is ignored is none
    if shown.any():
        corrupted, damaged_distance, masks = (
            Evidence(*(part[shown] for part in corrupted)),
            damaged_distance[shown],
            masks[shown],
        )
    statistics = CalibrationStatistics(JUDGED, None if model.ignored is None else model.ignored.judged).to(photos.device)
    for label, seen, far, mask in (
        (
            0,
            Evidence(*(part[: len(judged)] for part in clean)),
            distance,
            torch.zeros_like(masks[:1]).expand(len(judged), -1, -1),
        ),
        (1, corrupted, damaged_distance, masks),
    ):
        maps, score = model.fused_prediction(seen.difference, far, memory.share, seen.score)
        labels = torch.full((len(mask),), label, device=photos.device)
        statistics.update(maps, score, labels, mask)
    return memory, statistics


def _damage(photos: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Each photo with `DEFECTS` synthetic defects, one after the other round: ``(D K, 3, H, W)`` and masks ``(D K, H, W)``."""
    with seeded(seed):
        generator = PerlinAnomalyGenerator(probability=1.0)
        pairs = [generator(photo) for _ in range(DEFECTS) for photo in photos.cpu()]
    # What is blended in may leave the range of images.
    images = torch.stack([image.clamp(0, 1) for image, _ in pairs])
    masks = torch.stack([mask[0] > 0 for _, mask in pairs])
    return images.to(photos.device), masks.to(photos.device)


def _as_memory(tokens: Tensor, kept: Tensor) -> Tensor:
    """``(K, T, L, C)`` to ``(T, K L', C)`` of the tokens whose numbers are kept, in the precision that a memory has."""
    return tokens[:, :, kept].transpose(0, 1).flatten(1, 2).half()


def _memory_without(tokens: Tensor, index: int, kept: Tensor) -> Tensor:
    return _as_memory(torch.cat([tokens[:index], tokens[index + 1 :]]), kept)


def _pairs(difference: Tensor, distance: Tensor, model: DPCLIPModel, kept: Tensor) -> Tensor:
    """Both evidences of each token that is kept as they are fused, ``(N, 2)``."""
    evidences = (difference.flatten(1), model.smoothed(distance).flatten(1))
    return torch.stack([each[:, kept].flatten() for each in evidences], dim=1)


def thinned(memory: Tensor, limit: int, seed: int) -> Tensor:
    """At most ``limit`` tokens of each tap ``(T, M, C)``, spread as evenly as anomalib's greedy k-centres."""
    if memory.shape[1] <= limit:
        return memory
    with seeded(seed):
        return torch.stack(list(_centres(memory, limit, seed)))


def _centres(memory: Tensor, limit: int, seed: int) -> Iterator[Tensor]:
    for tokens in memory:
        # The sampler takes a share and rounds down.
        sampler = KCenterGreedy(tokens.float(), sampling_ratio=(limit + 0.5) / len(tokens))
        sampler.model.random_state = seed  # its projection also draws from NumPy
        yield tokens[sampler.select_coreset_idxs()]
