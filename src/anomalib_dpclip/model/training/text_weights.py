"""Episodes on the auxiliary set: how much its text would have counted beside a few good images of its classes."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from anomalib_dpclip.data.items import NamedImageBatch
from anomalib_dpclip.model.good_images import comparison_of, preparation
from anomalib_dpclip.scorers.comparison import Comparison
from anomalib_dpclip.scorers.memory_fit import MEMORY_TOKENS, MemoryFit
from anomalib_dpclip.scorers.region import Region
from anomalib_dpclip.scorers.text_weight import Episode, best_weight

GOOD_IMAGES = (1, 4)
"""Numbers of good images that weights are learned for."""

CLASSES = 6
"""Most auxiliary classes that episodes are of."""

SCORED = 4
"""Normal and anomalous images each that an episode scores."""


def learn_text_weights(module: Any, images: Any) -> dict[str, float]:
    """Weight of the text by the number of good images; nothing where no class has images enough, or images are tiled.

    Args:
        module: `DPCLIP`, in evaluation mode, which has learned from the auxiliary set.
        images: The plain images of that set.
    """
    if module.configuration.tiles > 1:
        return {}
    comparison, batches = comparison_of(module, Region()), list(_batches(images, module.seed))
    found = {count: [_scored_by(module, comparison, *pair, count) for pair in batches] for count in GOOD_IMAGES}
    return {str(count): best_weight(comparison, episodes) for count, episodes in found.items() if episodes}


def _scored_by(module: Any, comparison: Comparison, good: Any, scored: Any, count: int) -> Episode:
    """A batch of images with masks, scored by the first images of a good batch of the same class."""
    normalize, images = preparation(module).normalize, torch.as_tensor(good.image)
    anchors = module.target.anchors_of(good, module.device, follow_images=True)
    anchors = anchors[0] if anchors.ndim == 3 else anchors
    fit = MemoryFit(comparison, normalize, anchors, limit=MEMORY_TOKENS, seed=module.seed)
    state = fit.fit((images[:count] * 255).round().byte(), text_weight=0.0).state
    evidence, tokens = comparison.encode(normalize(scored.image.to(module.device)), anchors)
    distance = comparison.combined(*state.memory(tokens))
    mask, label = scored.gt_mask.to(distance.device), scored.gt_label.to(distance.device)
    return Episode(comparison.margin(evidence), evidence.score, distance, state.fusion, mask, label)


def _batches(images: Any, seed: int) -> Iterator[tuple[Any, Any]]:
    """Good images and labelled images of each class that has enough of them."""
    groups = images.samples.reset_index().groupby(["data_set", "class_name"]).groups
    for rows in list(groups.values())[:CLASSES]:
        order = np.random.RandomState(seed).permutation(rows)
        label = images.samples.label_index.to_numpy()[order]
        masked = images.samples.mask_path.notna().to_numpy()[order]
        normal, anomalous = order[label == 0], order[(label == 1) & masked]
        good, scored = normal[: max(GOOD_IMAGES)], [*normal[max(GOOD_IMAGES) :][:SCORED], *anomalous[:SCORED]]
        if len(good) == max(GOOD_IMAGES) and len(anomalous) > 0 and len(normal) > len(good):
            yield tuple(NamedImageBatch.collate([images[int(row)] for row in each]) for each in (good, scored))  # type: ignore[misc]
