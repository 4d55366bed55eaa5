"""From good images of the target to a memory of them, and what scores new good and damaged images will have."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from anomalib.data.utils.generators import PerlinAnomalyGenerator
from anomalib.models.components.sampling import KCenterGreedy
from torch import Tensor

from anomalib_dpclip.files.seeded import seeded
from anomalib_dpclip.scorers.comparison import Comparison
from anomalib_dpclip.scorers.fusion import Fusion, usual
from anomalib_dpclip.scorers.memory_scorer import MemoryScorer, MemoryState, TokenMemory, layer_distances, scaled

MEMORY_TOKENS = 68_450
"""Tokens that a memory keeps of each layer: 50 images of ViT-L at 518 pixels, 37 x 37 tokens each."""

SCORED_IMAGES = 16
"""Number of images that are scored by the others, however many there are: each costs as much as a comparison."""

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

    def rows(self, chosen: slice | Tensor) -> "Encoded":
        """Some of the images."""
        return Encoded([layer[chosen] for layer in self.tokens], self.margin[chosen], self.score[chosen])


class MemoryFit:
    """Makes memories of good images.

    Args:
        comparison: Compares images by tokens.
        normalize: From images in [0, 1] to what networks take.
        anchors: Text anchors ``(E, 2)`` of what the images show.
        limit: Most tokens of a layer that are kept.
        seed: Seed of the synthetic defects and of the thinning.
    """

    def __init__(
        self, comparison: Comparison, normalize: Callable[[Tensor], Tensor], anchors: Tensor, *, limit: int, seed: int
    ) -> None:
        self.comparison, self.normalize, self.anchors = comparison, normalize, anchors
        self.limit, self.seed = limit, seed
        # Of other tokens nothing is remembered.
        self.kept = [comparison.text.region.token_numbers(grid).to(anchors.device) for grid in comparison.source.grids]

    @torch.no_grad()
    def fit(self, images: Tensor, text_weight: float) -> MemoryScorer:
        """A memory of good images.

        Args:
            images: ``(K, 3, H, W)`` in 0..255, 8-bit, of the scorer's size, on the CPU.
            text_weight: Weight of the text beside the distance.
        """
        clean = self._encode(images)
        scored = clean.rows(slice(SCORED_IMAGES))
        count = len(scored.score)
        near = [self._distances(scored.rows(slice(i, i + 1)), self._others(clean, i, images)) for i in range(count)]
        distances = [torch.cat(layers) for layers in zip(*near, strict=True)]
        scale = torch.stack([each[:, kept].median() for each, kept in zip(distances, self.kept, strict=True)])
        memory = TokenMemory(
            [thinned(layer, self.limit, self.seed) for layer in self._pooled(clean.tokens)], scale, len(images)
        )
        normal = self.comparison.combined(scaled(distances, memory.scale))
        finest = self.kept[0]
        fusion = Fusion(
            usual(scored.margin.flatten(1)[:, finest]), usual(normal.flatten(1)[:, finest]), usual(clean.score), text_weight
        )
        damaged, masks = damage(images[:SCORED_IMAGES], self.seed)
        corrupted = self._encode(damaged)
        far = [self._distances(corrupted.rows(slice(i, None, count)), self._others(clean, i, images)) for i in range(count)]
        # Defect by defect, as `damage` orders them.
        ordered = [torch.stack(layers, dim=1).flatten(0, 1) for layers in zip(*far, strict=True)]
        anomalous = self.comparison.combined(scaled(ordered, memory.scale))
        rows = [self._scores(fusion, scored, normal, 0), self._scores(fusion, corrupted, anomalous, 1)[self._shown(masks)]]
        return MemoryScorer(self.comparison, MemoryState(memory, fusion, torch.cat(rows)))

    @torch.no_grad()
    def extend(self, state: MemoryState, images: Tensor) -> MemoryScorer:
        """A memory that more good images have joined.

        Args:
            state: The memory, and how it is fused, which stays.
            images: As in `fit`.
        """
        clean = self._encode(images)
        damaged, masks = damage(images, self.seed)
        corrupted = self._encode(damaged)
        rows = [state.scores]
        for encoded, label, chosen in ((clean, 0, slice(None)), (corrupted, 1, self._shown(masks))):
            distance = self.comparison.combined(state.memory([layer.float() for layer in encoded.tokens]))
            rows.append(self._scores(state.fusion, encoded, distance, label)[chosen])
        joined = zip(state.memory.layers, self._pooled(clean.tokens), strict=True)
        layers = [thinned(torch.cat([known, new]), self.limit, self.seed) for known, new in joined]
        memory = TokenMemory(layers, state.memory.scale, int(state.memory.photos) + len(images))
        return MemoryScorer(self.comparison, MemoryState(memory, state.fusion, torch.cat(rows)))

    def _encode(self, images: Tensor) -> Encoded:
        parts = []
        for part in images.split(BATCH):
            evidence, tokens = self.comparison.encode(self.normalize(part.to(self.anchors.device).float() / 255), self.anchors)
            parts.append(Encoded([layer.half() for layer in tokens], self.comparison.margin(evidence), evidence.score))
        tokens = [torch.cat(layers) for layers in zip(*(part.tokens for part in parts), strict=True)]
        return Encoded(tokens, torch.cat([part.margin for part in parts]), torch.cat([part.score for part in parts]))

    def _others(self, encoded: Encoded, index: int, images: Tensor) -> list[Tensor]:
        """The memory of all images but one; of a single image its own mirror images stand in for the others."""
        if len(images) == 1:
            return self._pooled(self._encode(torch.cat([images.flip(-1), images.flip(-2), images.flip(-1, -2)])).tokens)
        return self._pooled([torch.cat([layer[:index], layer[index + 1 :]]) for layer in encoded.tokens])

    def _pooled(self, layers: Sequence[Tensor]) -> list[Tensor]:
        """Tokens ``(K, L, C)`` of images, one tensor a layer, as a memory ``(K L', C)`` of those that are scored."""
        return [layer[:, kept].flatten(0, 1) for layer, kept in zip(layers, self.kept, strict=True)]

    @staticmethod
    def _distances(encoded: Encoded, memory: Sequence[Tensor]) -> list[Tensor]:
        return layer_distances([layer.float() for layer in encoded.tokens], memory)

    def _scores(self, fusion: Fusion, encoded: Encoded, distance: Tensor, label: int) -> Tensor:
        """Rows of `ImageStatistics` ``(K, 4)``; few maps are in memory at a time."""
        scored, rows = self.comparison.text.region.scored, []
        for margin, score, far in zip(
            encoded.margin.split(BATCH), encoded.score.split(BATCH), distance.split(BATCH), strict=True
        ):
            raw = self.comparison.predict(fusion, margin, score, far)
            values = raw.anomaly_map.flatten(1) if scored is None else raw.anomaly_map[:, scored]
            lowest, highest = values.aminmax(dim=1)
            rows.append(torch.stack([lowest, highest, raw.pred_score, torch.full_like(highest, label)], dim=1))
        return torch.cat(rows)

    def _shown(self, masks: Tensor) -> Tensor:
        """Which damaged images show their defect ``(K,)`` bool: one that is ignored is none; all, where none does."""
        scored = self.comparison.text.region.scored
        shown = (masks.to(self.anchors.device) & (True if scored is None else scored)).flatten(1).any(1)
        return shown if shown.any() else torch.ones_like(shown)


def damage(images: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Each image with `DEFECTS` synthetic defects, one after the other round: ``(D K, 3, H, W)`` and masks ``(D K, H, W)``.

    Args:
        images: ``(K, 3, H, W)`` in 0..255, 8-bit; so is the result.
        seed: Seed of the defects.
    """
    with seeded(seed):
        generator = PerlinAnomalyGenerator(probability=1.0)
        pairs = [generator(image.float() / 255) for _ in range(DEFECTS) for image in images]
    # What is blended in may leave the range of images.
    damaged = [(image.clamp(0, 1) * 255).round().byte() for image, _ in pairs]
    return torch.stack(damaged), torch.stack([mask[0] > 0 for _, mask in pairs])


def thinned(tokens: Tensor, limit: int, seed: int) -> Tensor:
    """At most ``limit`` tokens ``(M, C)`` of a layer, spread as evenly as anomalib's greedy k-centres."""
    if len(tokens) <= limit:
        return tokens
    with seeded(seed):
        # The sampler takes a share and rounds down.
        sampler = KCenterGreedy(tokens.float(), sampling_ratio=(limit + 0.5) / len(tokens))
        sampler.model.random_state = seed  # its projection also draws from NumPy
        return tokens[sampler.select_coreset_idxs()]
