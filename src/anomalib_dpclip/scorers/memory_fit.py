"""From good images of the target to a memory of them, and what scores new good and damaged images will have."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from anomalib.data.utils.generators import PerlinAnomalyGenerator
from anomalib.models.components.sampling import KCenterGreedy
from torch import Tensor

from anomalib_dpclip.files.seeded import seeded
from anomalib_dpclip.post_processing.calibration_statistics import CalibrationStatistics
from anomalib_dpclip.scorers.comparison import Comparison
from anomalib_dpclip.scorers.fusion import Fusion, usual
from anomalib_dpclip.scorers.memory_scorer import MemoryScorer, MemoryState, TokenMemory, layer_distances

MEMORY_TOKENS = 68_450
"""Tokens that a memory keeps of each layer: 50 images of ViT-L at 518 pixels, 37 x 37 tokens each."""

SCORED_IMAGES = 16
"""Number of images that are scored by the others, however many there are: each costs as much as a comparison."""

SCORED = "the good photos, each scored by the others"
"""What the images of the calibration are of."""

DEFECTS = 2
"""Synthetic defects put into each scored image."""

BATCH = 8


class Encoded(NamedTuple):
    """What is kept of images.

    Attributes:
        tokens: Tokens ``(K, L, C)`` in half precision, one tensor a layer.
        margin: The text's margins on the grid of the tokens ``(K, rows, columns)``.
        score: Detection scores ``(K,)``.
    """

    tokens: list[Tensor]
    margin: Tensor
    score: Tensor

    def rows(self, chosen: slice) -> "Encoded":
        """Some of the images."""
        return Encoded([layer[chosen] for layer in self.tokens], self.margin[chosen], self.score[chosen])


class Fit(NamedTuple):
    """A scorer, and what is known of the scores that it gives.

    Attributes:
        scorer: The scorer.
        statistics: Scores of the good images, as they are and with synthetic defects, each by the others.
    """

    scorer: MemoryScorer
    statistics: CalibrationStatistics


@torch.no_grad()
def fit_memory(
    comparison: Comparison,
    images: Tensor,
    normalize: Callable[[Tensor], Tensor],
    anchors: Tensor,
    *,
    limit: int,
    text_weight: float,
    seed: int,
) -> Fit:
    """Memory of good images, and the scores of each, as it is and damaged, that the others give it.

    Args:
        comparison: Compares images by tokens.
        images: ``(K, 3, H, W)`` in 0..255, 8-bit, of the scorer's size, on the CPU.
        normalize: From images in [0, 1] to what networks take.
        anchors: Text anchors ``(E, 2)`` of what they show.
        limit: Most tokens of a layer that are kept.
        text_weight: Weight of the text beside the distance.
        seed: Seed of the synthetic defects and of the thinning.
    """
    region, grid = comparison.text.region, comparison.source.grid
    kept = region.token_numbers(grid).to(anchors.device)  # of others nothing is remembered

    def encode(parts: Tensor) -> Encoded:
        encoded = [_encode(comparison, normalize(_unit(part).to(anchors.device)), anchors) for part in parts.split(BATCH)]
        tokens = [torch.cat(layers) for layers in zip(*(each.tokens for each in encoded), strict=True)]
        return Encoded(tokens, torch.cat([each.margin for each in encoded]), torch.cat([each.score for each in encoded]))

    scored = images[:SCORED_IMAGES]
    clean = encode(images)
    damaged, masks = damage(_unit(scored), seed)
    masks = masks.to(anchors.device) if region.scored is None else masks.to(anchors.device) & region.scored
    corrupted = encode((damaged * 255).round().byte())
    # Its own mirror images stand in for the other images where there is only one.
    others = None
    if len(images) == 1:
        others = _pooled(encode(torch.cat([images.flip(-1), images.flip(-2), images.flip(-1, -2)])).tokens, kept)
    near, far = [], []
    for index in range(len(scored)):
        known = others or _pooled([torch.cat([layer[:index], layer[index + 1 :]]) for layer in clean.tokens], kept)
        near.append(_distances(clean, slice(index, index + 1), known))
        far.append(_distances(corrupted, slice(index, None, len(scored)), known))
    distances = torch.cat(near)
    scale = distances[..., kept].flatten(2).median(dim=2).values.median(dim=0).values
    memory = TokenMemory([thinned(layer, limit, seed) for layer in _pooled(clean.tokens, kept)], scale, len(images))
    normal = _mean_over_layers(distances, memory.scale)
    # Defect by defect, as `damage` orders them.
    anomalous = _mean_over_layers(torch.stack(far, dim=1).flatten(0, 1), memory.scale)
    fusion = Fusion(
        usual(clean.margin[: len(scored)].flatten(1)[:, kept]),
        usual(comparison.smooth(normal).flatten(1)[:, kept]),
        usual(clean.score),
        text_weight,
    )
    scorer = MemoryScorer(comparison, MemoryState(memory, fusion))
    statistics = CalibrationStatistics(SCORED, region.scored).to(anchors.device)
    shown = masks.flatten(1).any(1)  # a defect that is ignored is none
    whole = torch.zeros_like(masks[:1]).expand(len(scored), -1, -1)
    for encoded, distance, mask, chosen in (
        (clean.rows(slice(len(scored))), normal, whole, slice(None)),
        (corrupted, anomalous, masks, shown if shown.any() else slice(None)),
    ):
        margin, score = (encoded.margin[chosen], encoded.score[chosen]) if fusion.uses_text else (None, None)
        raw = comparison.predict(fusion, margin, score, distance[chosen])
        label = torch.full_like(raw.pred_score, float(mask is masks))  # type: ignore[arg-type]
        statistics.update(raw.anomaly_map, raw.pred_score, label, mask[chosen])
    return Fit(scorer, statistics)


def _encode(comparison: Comparison, images: Tensor, anchors: Tensor) -> Encoded:
    evidence, tokens = comparison.encode(images, anchors, with_text=True)
    if evidence is None:
        raise ValueError("the text is asked for, and says nothing")
    return Encoded([layer.half() for layer in tokens], comparison.margin(evidence), evidence.score)


def _unit(images: Tensor) -> Tensor:
    """8-bit images in [0, 1]."""
    return images.float() / 255


def _pooled(layers: Sequence[Tensor], kept: Tensor) -> list[Tensor]:
    """Tokens ``(K, L, C)`` of images, one tensor a layer, as a memory ``(K L', C)`` of those whose numbers are kept."""
    return [layer[:, kept].flatten(0, 1) for layer in layers]


def _distances(encoded: Encoded, chosen: slice, memory: Sequence[Tensor]) -> Tensor:
    return layer_distances([layer[chosen].float() for layer in encoded.tokens], memory)


def _mean_over_layers(distances: Tensor, scale: Tensor) -> Tensor:
    """Distances ``(B, T, L)`` in units of what is typical at each layer, ``(B, L)``."""
    return (distances / scale.view(1, -1, 1)).mean(dim=1)


def damage(images: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Each image with `DEFECTS` synthetic defects, one after the other round: ``(D K, 3, H, W)`` and masks ``(D K, H, W)``.

    Args:
        images: ``(K, 3, H, W)`` in [0, 1].
        seed: Seed of the defects.
    """
    with seeded(seed):
        generator = PerlinAnomalyGenerator(probability=1.0)
        pairs = [generator(image) for _ in range(DEFECTS) for image in images]
    # What is blended in may leave the range of images.
    return torch.stack([image.clamp(0, 1) for image, _ in pairs]), torch.stack([mask[0] > 0 for _, mask in pairs])


def thinned(tokens: Tensor, limit: int, seed: int) -> Tensor:
    """At most ``limit`` tokens ``(M, C)`` of a layer, spread as evenly as anomalib's greedy k-centres."""
    if len(tokens) <= limit:
        return tokens
    with seeded(seed):
        # The sampler takes a share and rounds down.
        sampler = KCenterGreedy(tokens.float(), sampling_ratio=(limit + 0.5) / len(tokens))
        sampler.model.random_state = seed  # its projection also draws from NumPy
        return tokens[sampler.select_coreset_idxs()]
