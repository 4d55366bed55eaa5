"""From good images of the target to a memory of them, and what scores new good and damaged images will have."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from anomalib.data.utils.generators import PerlinAnomalyGenerator
from torch import Tensor

from anomalib_dpclip.files.precision import full_precision
from anomalib_dpclip.files.seeded import seeded
from anomalib_dpclip.scorers.comparison import Comparison
from anomalib_dpclip.scorers.fusion import Fusion, usual
from anomalib_dpclip.scorers.memory_scorer import MemoryScorer, MemoryState, TokenMemory, joined, sparse_numbers, spread_of
from anomalib_dpclip.scorers.token_source import Tokens

MEMORY_TOKENS = 20_000
"""Most tokens that a memory keeps of each layer."""

SCORED_IMAGES = 16
"""Number of images that are scored by the others, however many there are: each costs as much as a comparison."""

DEFECTS = 2
"""Synthetic defects put into each scored image."""


class Encoded(NamedTuple):
    """What is kept of images.

    Attributes:
        tokens: Their tokens, in half precision.
        margin: The text's margins on the finest grid ``(K, rows, columns)``.
        score: Detection scores ``(K,)``.
    """

    tokens: Tokens
    margin: Tensor
    score: Tensor


class MemoryFit:
    """Makes memories of good images.

    Args:
        comparison: Compares images by tokens.
        normalize: From images in [0, 1] to what networks take.
        anchors: Text anchors ``(E, 2)`` of what the images show.
        limit: Most tokens of a layer that are kept.
        seed: Seed of the synthetic defects and of the choice of tokens.
    """

    def __init__(
        self, comparison: Comparison, normalize: Callable[[Tensor], Tensor], anchors: Tensor, *, limit: int, seed: int
    ) -> None:
        self.comparison, self.normalize, self.anchors = comparison, normalize, anchors
        self.limit, self.seed = limit, seed

    @torch.no_grad()
    def fit(self, images: Tensor, text_weight: float) -> MemoryScorer:
        """A memory of good images.

        Args:
            images: ``(K, 3, H, W)`` in 0..255, 8-bit, of the scorer's size, on the CPU.
            text_weight: Weight of the text beside the distance.
        """
        # Of each image as many tokens: what is kept is bounded, however many images there are.
        keys = [self._keys(each, self.limit // len(images)) for each in self._encoded(images)]
        memory = self._memory(keys)
        scored = list(self._encoded(images[:SCORED_IMAGES]))
        others = [self._memory(self._others(keys, index, images)) for index in range(len(scored))]
        normal = torch.cat([self._distance(known, each) for known, each in zip(others, scored, strict=True)])
        finest = self._kept(self.comparison.grid)
        fusion = Fusion(
            usual(torch.cat([each.margin for each in scored]).flatten(1)[:, finest]),
            usual(normal.flatten(1)[:, finest]),
            usual(torch.cat([each.score for each in scored])),
            text_weight,
        )
        rows = [self._row(fusion, each, distance, 0) for each, distance in zip(scored, normal.split(1), strict=True)]
        damaged, masks = damage(images[:SCORED_IMAGES], self.seed)
        for index, (each, shown) in enumerate(zip(self._encoded(damaged), self._shown(masks), strict=True)):
            if shown:
                rows.append(self._row(fusion, each, self._distance(others[index % len(scored)], each), 1))
        return MemoryScorer(self.comparison, MemoryState(memory, fusion, torch.cat(rows)))

    @torch.no_grad()
    def extend(self, state: MemoryState, images: Tensor) -> MemoryScorer:
        """A memory that more good images have joined.

        Their own scores are not kept: images that were called anomalous are no sample of good ones, and thresholds from them
        would rise to what was called anomalous.

        Args:
            state: The memory, and how it is fused, which stays.
            images: As in `fit`.
        """
        keys = [self._keys(each, self.limit) for each in self._encoded(images)]
        return MemoryScorer(self.comparison, MemoryState(self._memory(keys, state.memory), state.fusion, state.scores))

    def _encoded(self, images: Tensor) -> Iterator[Encoded]:
        """Images one after another."""
        for image in images.split(1):
            seen = self.normalize(image.to(self.anchors.device).float() / 255)
            evidence, tokens = self.comparison.encode(seen, self.anchors)
            halved = Tokens([each.half() for each in tokens.separate], [each.half() for each in tokens.joint])
            yield Encoded(halved, self.comparison.margin(evidence), evidence.score)

    def _kept(self, grid: tuple[int, int]) -> Tensor:
        """Numbers of the tokens that are scored: of others nothing is remembered."""
        return self.comparison.text.region.token_numbers(grid).to(self.anchors.device)

    def _keys(self, encoded: Encoded, limit: int) -> Tokens:
        """Tokens ``(M, C)`` of an image that a memory keeps, no more of a layer than the limit."""
        grids, tokens = self.comparison.source.grids, encoded.tokens
        separate = [self._chosen(layer[0], grid, limit) for layer, grid in zip(tokens.separate, grids, strict=True)]
        return Tokens(separate, [self._chosen(layer[0], grids[0], limit) for layer in tokens.joint])

    def _chosen(self, tokens: Tensor, grid: tuple[int, int], limit: int) -> Tensor:
        return thinned(tokens[sparse_numbers(self._kept(grid), grid)], max(limit, 1), self.seed)

    def _memory(self, keys: Sequence[Tokens], known: TokenMemory | None = None) -> TokenMemory:
        """A memory of the tokens of images, which join one that is known."""
        with full_precision(self.anchors):  # autocast joins no half-precision tokens on a CPU
            separate = [torch.cat(layers) for layers in zip(*(each.separate for each in keys), strict=True)]
            joint = [torch.cat(layers) for layers in zip(*(each.joint for each in keys), strict=True)]
            if known is None:
                spread = torch.stack([spread_of(layer) for layer in separate])
                joint_spread = torch.stack([spread_of(layer) for layer in joint]) if joint else None
            else:
                spread, joint_spread = known.spread, known.joint_spread
                separate = [torch.cat(pair) for pair in zip(known.layers, separate, strict=True)]
            together = None if joint_spread is None else joined(joint, joint_spread).half()
            if known is not None and known.joint is not None and together is not None:
                together = torch.cat([known.joint, together])
            return TokenMemory(
                [thinned(layer, self.limit, self.seed) for layer in separate],
                spread,
                None if together is None else thinned(together, self.limit, self.seed),
                joint_spread,
                len(keys) + (0 if known is None else int(known.photos)),
            )

    def _others(self, keys: Sequence[Tokens], index: int, images: Tensor) -> list[Tokens]:
        """Tokens of all images but one; of a single image those of its mirror images stand in for the others'."""
        if len(keys) > 1:
            return [*keys[:index], *keys[index + 1 :]]
        mirrored = torch.cat([images.flip(-1), images.flip(-2), images.flip(-1, -2)])
        return [self._keys(each, self.limit) for each in self._encoded(mirrored)]

    def _distance(self, memory: TokenMemory, encoded: Encoded) -> Tensor:
        tokens = Tokens([each.float() for each in encoded.tokens.separate], [each.float() for each in encoded.tokens.joint])
        return self.comparison.combined(*memory(tokens))

    def _row(self, fusion: Fusion, encoded: Encoded, distance: Tensor, label: int) -> Tensor:
        """Row of `ImageStatistics` of an image ``(1, 4)``."""
        scored = self.comparison.text.region.scored
        raw = self.comparison.predict(fusion, encoded.margin, encoded.score, distance)
        values = raw.anomaly_map.flatten(1) if scored is None else raw.anomaly_map[:, scored]
        lowest, highest = values.aminmax(dim=1)
        return torch.stack([lowest, highest, raw.pred_score, torch.full_like(highest, label)], dim=1)

    def _shown(self, masks: Tensor) -> Tensor:
        """Which damaged images show their defect ``(K,)`` bool: one that is ignored is none; all, where none does."""
        scored = self.comparison.text.region.scored
        shown = (masks & (True if scored is None else scored.cpu())).flatten(1).any(1)
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
    """At most ``limit`` tokens ``(M, C)`` of a layer, by chance: a greedy coreset was no better, and takes minutes."""
    if len(tokens) <= limit:
        return tokens
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seed))
    return tokens[order[:limit].sort().values.to(tokens.device)]
