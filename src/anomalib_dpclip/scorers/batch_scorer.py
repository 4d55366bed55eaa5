"""Scoring a whole unlabelled batch: its images are compared with each other, for most are normal and defects seldom alike.

MuSc (Li et al., ICLR 2024): the lowest distances of a token to the other images are averaged. A panel of the images, chosen by
chance, is what all are compared with: what a batch takes grows with its size, not with its square.
"""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from anomalib.data import ImageBatch, InferenceBatch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Subset
from tqdm.auto import tqdm

from anomalib_dpclip.files.precision import full_precision
from anomalib_dpclip.post_processing.calibration_statistics import UNKNOWN_LABEL, ImageStatistics
from anomalib_dpclip.post_processing.unlabelled import mostly_anomalous
from anomalib_dpclip.scorers.comparison import Comparison, Encoded, Evidence
from anomalib_dpclip.scorers.fusion import Fusion
from anomalib_dpclip.scorers.memory_scorer import MemoryState, sparse_numbers, spread_of
from anomalib_dpclip.scorers.scorer import Scorer

logger = logging.getLogger(__name__)

LOWEST_SHARE = 0.2
"""Share of a token's distances to the other images that count, the lowest: a few images may have its defect (MuSc)."""

PROJECTED_WIDTH = 256
"""Values of a token that are compared: a random projection of wider ones keeps distances, and takes a fraction of the time."""

PANEL = 200
"""Most images that a batch is compared with. MuSc splits a batch into groups of about as many."""


class Panel(NamedTuple):
    """Images that a batch is compared with."""

    keys: list[Tensor]  # tokens (N, L', C) in half precision, one tensor a layer
    spread: Tensor  # of the tokens at each layer (T,)
    number: dict[str, int]  # of each image, by its path
    evidence: Evidence  # of the images, compared with the rest of the panel, and with good images where there are any
    fusion: Fusion


class BatchScorer(Scorer):
    """Distances to the other images of a run, to good images too where there are any, and the text beside them.

    Args:
        comparison: Compares images by tokens.
        memory: Good images, if there are any: they count as much as the batch.
        text_weight: Weight of the text beside the distance.
        ready: From a loader's batch to normalised images ``(B, 3, H, W)`` and their anchors.
        seed: Of the panel's choice and of the projection.
    """

    name = "batch"

    def __init__(
        self,
        comparison: Comparison,
        memory: MemoryState | None,
        *,
        text_weight: float,
        ready: Callable[[ImageBatch], tuple[Tensor, Tensor]],
        seed: int,
    ) -> None:
        self.comparison, self.text_weight, self.ready, self.seed = comparison, text_weight, ready, seed
        self.state: MemoryState | None = memory
        self._panel: Panel | None = None

    @property
    def image_size(self) -> tuple[int, int]:
        """See `Scorer.image_size`."""
        return self.comparison.text.image_size

    @torch.no_grad()
    def prepare(self, loaders: Any) -> None:
        """See the panel of a run's images, in every process the same."""
        self._panel = self._see(panel_loader(loaders, self.seed))
        if self._panel is None:
            logger.warning("a lot of less than two images cannot be compared with itself: its images are scored without it")
        elif mostly_anomalous(self.image_statistics().map_max):
            logger.warning(
                "more than half of this lot looks unlike the rest, and a lot is judged by what most of its images look like. "
                "If most are damaged, give some good photos with --model.few_shot_source"
            )

    @property
    def is_prepared(self) -> bool:
        """Whether there are images to compare with."""
        return self._panel is not None

    def score(self, images: Tensor, anchors: Tensor, paths: Sequence[str] | None = None) -> InferenceBatch:
        """See `Scorer.score`; an image is not compared with itself, and nothing before `prepare`."""
        panel = self._panel
        if panel is None:
            raise RuntimeError("a batch is scored after it has been seen: prepare the scorer with its loaders first")
        numbers = [panel.number.get(str(path)) for path in paths or [None] * len(images)]  # type: ignore[list-item]
        if None not in numbers:  # all have been seen already
            return self.comparison.predict(panel.fusion, panel.evidence.of(numbers))  # type: ignore[arg-type]
        tokens, margin, score = self.comparison.encode(images, anchors)
        distance = self._distance(self._projected(tokens), panel.keys, panel.spread, numbers)
        if self.state is not None:
            distance = (distance + self.comparison.combined(self.state.memory(tokens))) / 2
        return self.comparison.predict(panel.fusion, Evidence(margin, score, distance))

    def image_statistics(self) -> ImageStatistics:
        """Scores of the panel's images; few maps are in memory at a time."""
        panel = self._panel
        if panel is None:
            return ImageStatistics(*torch.empty(4, 0))
        parts = torch.arange(len(panel.number)).split(8)
        rows = [self.comparison.image_rows(panel.fusion, panel.evidence.of(part), UNKNOWN_LABEL) for part in parts]
        return ImageStatistics(*torch.cat(rows).cpu().unbind(1))

    def _see(self, loader: DataLoader) -> Panel | None:
        """The panel, whose images are compared with each other; ``None`` if it has less than two."""
        paths: list[str] = []
        seen: list[Encoded] = []
        to_memory: list[Tensor] = []
        for batch in tqdm(loader, desc="Seeing the lot", leave=False):
            if not batch.image_path:
                continue
            tokens, margin, score = self.comparison.encode(*self.ready(batch))
            seen.append(([each.half() for each in tokens], margin, score))
            if self.state is not None:
                to_memory.append(self.comparison.combined(self.state.memory(tokens)))
            paths += [str(path) for path in batch.image_path]
        if len(paths) < 2:
            return None
        with full_precision(seen[0][0][0]):  # autocast joins no half-precision tokens on a CPU
            return self._panel_of(paths, seen, to_memory)

    def _panel_of(self, paths: list[str], seen: list[Encoded], to_memory: list[Tensor]) -> Panel:
        """The panel of images that have been encoded, and whose distances to good images have been found."""
        layers = [torch.cat(layer) for layer in zip(*(tokens for tokens, *_ in seen), strict=True)]
        spread = torch.stack([spread_of(layer) for layer in layers])
        layers, region = self._projected(layers), self.comparison.text.region
        kept = [sparse_numbers(region.token_numbers(grid), grid) for grid in self.comparison.source.grids]
        keys = [layer[:, numbers] for layer, numbers in zip(layers, kept, strict=True)]
        distance = self._distance(layers, keys, spread, range(len(paths)))
        if to_memory:  # good images count as much as the batch
            distance = (distance + torch.cat(to_memory)) / 2
        margin, score = (torch.cat(parts) for parts in zip(*(text for _, *text in seen), strict=True))
        evidence = Evidence(margin, score, distance)
        # The half of the panel that looks most normal says what is usual.
        finest = region.token_numbers(self.comparison.grid).to(distance.device)
        normal = distance.flatten(1)[:, finest].amax(1).argsort()[: max(1, len(distance) // 2)]
        fusion = self.comparison.fusion([evidence.of(normal)], self.text_weight)
        return Panel(keys, spread, {path: number for number, path in enumerate(paths)}, evidence, fusion)

    def _projected(self, layers: Sequence[Tensor]) -> list[Tensor]:
        """Tokens ``(B, L, C)`` as they are compared: in half precision, wide ones projected."""
        return [random_projection(layer, self.seed).half() for layer in layers]

    def _distance(self, layers: Sequence[Tensor], keys: Sequence[Tensor], spread: Tensor, own: Sequence[int | None]) -> Tensor:
        """Distances to the panel ``(B, rows, columns)``, see `mutual_distances`."""
        parts = zip(layers, keys, spread, strict=True)
        return self.comparison.combined([mutual_distances(tokens, others, own) / scale for tokens, others, scale in parts])


def random_projection(tokens: Tensor, seed: int) -> Tensor:
    """Tokens ``(B, L, C)`` projected to `PROJECTED_WIDTH`, which keeps lengths in expectation, unless as narrow already."""
    if tokens.shape[-1] <= PROJECTED_WIDTH:
        return tokens
    projection = torch.randn(tokens.shape[-1], PROJECTED_WIDTH, generator=torch.Generator().manual_seed(seed))
    return tokens.float() @ (projection / math.sqrt(PROJECTED_WIDTH)).to(tokens.device)


def choose_panel(images: int, seed: int, size: int = PANEL) -> list[int]:
    """Numbers, in their order, of the images of a batch that all are compared with: all, or ``size`` of them by chance."""
    return sorted(torch.randperm(images, generator=torch.Generator().manual_seed(seed))[:size].tolist())


def panel_loader(loaders: DataLoader | Sequence[DataLoader], seed: int) -> DataLoader:
    """A loader of the panel of a run's images, whichever part of them this process then scores.

    A data set with an attribute ``whole`` is a part of that, such as what is left to do.
    """
    all_loaders = list(loaders) if isinstance(loaders, list | tuple) else [loaders]
    first: Any = all_loaders[0]
    images: Any = ConcatDataset([getattr(loader.dataset, "whole", loader.dataset) for loader in all_loaders])
    panel = Subset(images, choose_panel(len(images), seed))
    size = first.batch_size or getattr(first.batch_sampler, "batch_size", 1)
    return DataLoader(panel, size, num_workers=first.num_workers, collate_fn=first.collate_fn)


def mutual_distances(tokens: Tensor, panel: Tensor, own: Sequence[int | None]) -> Tensor:
    """Distances ``(B, L)`` of tokens ``(B, L, C)`` to the images of a panel ``(N, L', C)``, at one layer.

    Of those to the nearest token of each image the mean of the lowest `LOWEST_SHARE` (at least one). No image is compared with
    its own number in the panel, which is ``None`` if it is not there.
    """
    result = []
    for image, number in zip(tokens, own, strict=True):
        others = [other for other in range(len(panel)) if other != number]
        nearest = torch.stack([_nearest(image.float(), panel[other].float()) for other in others])
        count = max(1, round(LOWEST_SHARE * len(others)))
        result.append(nearest.topk(count, dim=0, largest=False).values.mean(0))
    return torch.stack(result)


def _nearest(own: Tensor, other: Tensor) -> Tensor:
    """Distance ``(L,)`` of tokens ``(L, C)`` to the nearest of another image ``(L', C)``."""
    with full_precision(own):
        # |x - m|^2 less |x|^2 in one pass; the minimum down the columns is twice as fast as along the rows.
        squares = torch.addmm(other.square().sum(1, keepdim=True), other, own.T, alpha=-2)
    return (squares.amin(0) + own.square().sum(1)).clamp_min(0).sqrt()
