"""From good images of the target to a memory of them, and what scores new good and damaged images will have."""

from collections.abc import Callable, Iterator, Sequence

import torch
from anomalib.data.utils.generators import PerlinAnomalyGenerator
from torch import Tensor

from anomalib_dpclip.files.precision import full_precision
from anomalib_dpclip.files.seeded import seeded
from anomalib_dpclip.scorers.comparison import Comparison, Encoded, Evidence
from anomalib_dpclip.scorers.memory_scorer import MemoryScorer, MemoryState, TokenMemory, sparse_numbers, spread_of

MEMORY_TOKENS = 20_000
"""Most tokens that a memory keeps of each layer."""

SCORED_IMAGES = 16
"""Number of images that are scored by the others, however many there are: each costs as much as a comparison."""

DEFECTS = 2
"""Synthetic defects put into each scored image."""


class MemoryFit:
    """Makes memories of good images ``(K, 3, H, W)`` in 0..255, 8-bit, of the scorer's size, on the CPU.

    It normalises images in [0, 1], takes text anchors ``(E, 2)`` of what they show, and keeps at most ``limit`` tokens of a
    layer. The seed is of the synthetic defects and of the choice of tokens.
    """

    def __init__(
        self, comparison: Comparison, normalize: Callable[[Tensor], Tensor], anchors: Tensor, *, limit: int, seed: int
    ) -> None:
        self.comparison, self.normalize, self.anchors = comparison, normalize, anchors
        self.limit, self.seed = limit, seed

    @torch.no_grad()
    def fit(self, images: Tensor, text_weight: float) -> MemoryScorer:
        """A memory of good images, with a weight of the text beside the distance."""
        # Of each image as many tokens: what is kept is bounded, however many images there are.
        keys = [self._keys(tokens, self.limit // len(images)) for tokens, *_ in self._encoded(images)]
        scored = list(self._encoded(images[:SCORED_IMAGES]))
        others = [self._memory(self._others(keys, index, images)) for index in range(len(scored))]
        normal = [self._evidence(each, known) for each, known in zip(scored, others, strict=True)]
        fusion = self.comparison.fusion(normal, text_weight)
        rows = [self.comparison.image_rows(fusion, each, 0) for each in normal]
        damaged, masks = damage(images[:SCORED_IMAGES], self.seed)
        for index, (each, shown) in enumerate(zip(self._encoded(damaged), self._shown(masks), strict=True)):
            if shown:
                rows.append(self.comparison.image_rows(fusion, self._evidence(each, others[index % len(scored)]), 1))
        return MemoryScorer(self.comparison, MemoryState(self._memory(keys), fusion, torch.cat(rows)))

    @torch.no_grad()
    def extend(self, state: MemoryState, images: Tensor) -> MemoryScorer:
        """A memory that more good images have joined; how it is fused stays.

        Their own scores are not kept: images that were called anomalous are no sample of good ones, and thresholds from them
        would rise to what was called anomalous.
        """
        keys = [self._keys(tokens, self.limit) for tokens, *_ in self._encoded(images)]
        return MemoryScorer(self.comparison, MemoryState(self._memory(keys, state.memory), state.fusion, state.scores))

    def _encoded(self, images: Tensor) -> Iterator[Encoded]:
        """Images one after another, their tokens in half precision."""
        for image in images.split(1):
            normalised = self.normalize(image.to(self.anchors.device).float() / 255)
            tokens, margin, score = self.comparison.encode(normalised, self.anchors)
            yield [each.half() for each in tokens], margin, score

    def _evidence(self, seen: Encoded, memory: TokenMemory) -> Evidence:
        tokens, margin, score = seen
        return Evidence(margin, score, self.comparison.combined(memory(tokens)))

    def _keys(self, tokens: Sequence[Tensor], limit: int) -> list[Tensor]:
        """Tokens ``(M, C)`` of an image that a memory keeps, no more of a layer than the limit; none of what is not scored."""
        region, grids = self.comparison.text.region, self.comparison.source.grids
        numbers = [sparse_numbers(region.token_numbers(grid), grid).to(self.anchors.device) for grid in grids]
        return [thinned(layer[0, kept], max(limit, 1), self.seed) for layer, kept in zip(tokens, numbers, strict=True)]

    def _memory(self, keys: Sequence[list[Tensor]], known: TokenMemory | None = None) -> TokenMemory:
        """A memory of the tokens of images, which join one that is known."""
        with full_precision(self.anchors):  # autocast joins no half-precision tokens on a CPU
            layers = [torch.cat(layer) for layer in zip(*keys, strict=True)]
            spread, photos = torch.stack([spread_of(layer) for layer in layers]), len(keys)
            if known is not None:
                layers = [torch.cat(pair) for pair in zip(known.layers, layers, strict=True)]
                spread, photos = known.spread, photos + int(known.photos)
            return TokenMemory([thinned(layer, self.limit, self.seed) for layer in layers], spread, photos)

    def _others(self, keys: Sequence[list[Tensor]], index: int, images: Tensor) -> list[list[Tensor]]:
        """Tokens of all images but one; of a single image those of its mirror images stand in for the others'."""
        if len(keys) > 1:
            return [*keys[:index], *keys[index + 1 :]]
        mirrored = torch.cat([images.flip(-1), images.flip(-2), images.flip(-1, -2)])
        return [self._keys(tokens, self.limit) for tokens, *_ in self._encoded(mirrored)]

    def _shown(self, masks: Tensor) -> Tensor:
        """Which damaged images show their defect ``(K,)`` bool: one that is ignored is none; all, where none does."""
        scored = self.comparison.text.region.scored
        shown = (masks & (True if scored is None else scored.cpu())).flatten(1).any(1)
        return shown if shown.any() else torch.ones_like(shown)


def damage(images: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Images with `DEFECTS` synthetic defects, one after the other round: 8-bit ``(D K, 3, H, W)``, masks ``(D K, H, W)``."""
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
