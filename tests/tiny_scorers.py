"""Scorers on a tiny CLIP, and photos for them."""

import torch
from anomalib.data import ImageBatch, ImageItem
from torch import Tensor
from torch.utils.data import DataLoader

from anomalib_dpclip.scorers.batch_scorer import BatchScorer
from anomalib_dpclip.scorers.comparison import Comparison
from anomalib_dpclip.scorers.memory_fit import MemoryFit
from anomalib_dpclip.scorers.region import Region
from anomalib_dpclip.scorers.text_scorer import TextScorer
from anomalib_dpclip.scorers.token_source import OwnTokens
from tests.tiny_clip import tiny_model


def tiny_comparison() -> Comparison:
    """By the backbone's own tokens."""
    return Comparison(TextScorer(tiny_model(), Region()), OwnTokens((6, 6), 4))


def soft_images(count: int, seed: int = 0) -> Tensor:
    """Photos ``(count, 3, 24, 24)`` in 0..255 that show nothing in particular."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(90, 110, (count, 3, 24, 24), generator=generator, dtype=torch.uint8)


def tiny_fit(comparison: Comparison, limit: int = 1000) -> MemoryFit:
    """What makes memories of such photos."""
    return MemoryFit(comparison, lambda images: images, comparison.text.model.anchors, limit=limit, seed=0)


def tiny_batch_scorer(items: list[ImageItem], batch_size: int = 2) -> BatchScorer:
    """Prepared for a lot, without the text."""
    comparison = tiny_comparison()
    anchors = comparison.text.model.anchors
    scorer = BatchScorer(comparison, None, text_weight=0, ready=lambda batch: (batch.image, anchors), seed=1)
    scorer.prepare(DataLoader(items, batch_size, collate_fn=ImageBatch.collate))
    return scorer
