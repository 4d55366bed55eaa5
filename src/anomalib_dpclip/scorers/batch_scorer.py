"""Scoring a whole unlabelled batch: its images are compared with each other, for most are normal and defects seldom alike.

MuSc (Li et al., ICLR 2024): the lowest distances of a token to the other images are averaged. A panel of the images, chosen by
chance, is what all are compared with: what a batch takes grows with its size, not with its square.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from anomalib.data import ImageBatch, InferenceBatch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Subset
from tqdm.auto import tqdm

from anomalib_dpclip.files.precision import full_precision
from anomalib_dpclip.post_processing.calibration_statistics import UNKNOWN_LABEL, ImageStatistics
from anomalib_dpclip.post_processing.unlabelled import mostly_anomalous
from anomalib_dpclip.scorers.comparison import Comparison
from anomalib_dpclip.scorers.fusion import Fusion, usual
from anomalib_dpclip.scorers.memory_scorer import Distances, MemoryState, joined, sparse_numbers, spread_of
from anomalib_dpclip.scorers.scorer import Scorer
from anomalib_dpclip.scorers.token_source import Tokens

logger = logging.getLogger(__name__)

LOWEST_SHARE = 0.2
"""Share of a token's distances to the other images that count, the lowest: a few images may have its defect (MuSc)."""

PROJECTED_WIDTH = 256
"""Values of a token that are compared: a random projection of wider ones keeps distances, and takes a fraction of the time."""

PANEL = 200
"""Most images that a batch is compared with. MuSc splits a batch into groups of about as many."""

Ready = Callable[[ImageBatch], tuple[Tensor, Tensor]]
"""From a batch as a loader gives it to what scorers take: normalised images ``(B, 3, H, W)`` and their anchors."""


@dataclass
class Panel:
    """Images that a batch is compared with, and what is known of themselves.

    Attributes:
        keys: Tokens that others are compared with ``(N, L', C)``, in half precision, one tensor a layer; the last one is of all
            layers together, where there are such tokens.
        spread: Mean distance of tokens from their mean at each separate layer ``(T,)``.
        joint_spread: The same of the joint layers; ``None`` for none.
        number: Each image's number, by its path.
        margin: The text's margins ``(N, rows, columns)``.
        score: Detection scores ``(N,)``.
        distance: Distances to the rest of the panel, and to good images where there are any, ``(N, rows, columns)``.
    """

    keys: list[Tensor]
    spread: Tensor
    joint_spread: Tensor | None
    number: dict[str, int]
    margin: Tensor
    score: Tensor
    distance: Tensor


class BatchScorer(Scorer):
    """Distances to the other images of a run, to good images too where there are any, and the text beside them.

    Args:
        comparison: Compares images by tokens.
        memory: Good images, if there are any: they count as much as the batch.
        text_weight: Weight of the text beside the distance.
        ready: Prepares a batch of a loader.
        seed: Seed of the panel's choice and of the projection.
    """

    name = "batch"

    def __init__(
        self, comparison: Comparison, memory: MemoryState | None, *, text_weight: float, ready: Ready, seed: int
    ) -> None:
        self.comparison, self.ready, self.seed = comparison, ready, seed
        self.state: MemoryState | None = memory
        self.text_weight = text_weight
        self._panel: Panel | None = None
        self._fusion: Fusion | None = None

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images that `score` takes."""
        return self.comparison.text.image_size

    @torch.no_grad()
    def prepare(self, loaders: Any) -> None:
        """See the panel of a run's images, in every process the same."""
        self._panel = self._see(panel_loader(loaders, self.seed))
        if self._panel is None:
            logger.warning("a lot of less than two images cannot be compared with itself: its images are scored without it")
            return
        self._fusion = self._fuse(self._panel)
        if mostly_anomalous(self.image_statistics().map_max):
            logger.warning(
                "more than half of this lot looks unlike the rest, and a lot is judged by what most of its images look like. "
                "If most are damaged, give some good photos with --model.few_shot_source"
            )

    @property
    def is_prepared(self) -> bool:
        """Whether there are images to compare with."""
        return self._panel is not None

    def score(self, images: Tensor, anchors: Tensor, paths: Sequence[str] | None = None) -> InferenceBatch:
        """See `Scorer.score`; an image is not compared with itself.

        Raises:
            RuntimeError: Before `prepare`.
        """
        panel, fusion = self._panel, self._fusion
        if panel is None or fusion is None:
            raise RuntimeError("a batch is scored after it has been seen: prepare the scorer with its loaders first")
        numbers = [panel.number.get(str(path)) for path in paths or [None] * len(images)]  # type: ignore[list-item]
        if None not in numbers:  # all have been seen already
            margin, score, distance = panel.margin[numbers], panel.score[numbers], panel.distance[numbers]
        else:
            evidence, tokens = self.comparison.encode(images, anchors)
            margin, score = self.comparison.margin(evidence), evidence.score
            mutual = self._mutual(self._compared(tokens, panel.joint_spread), panel.keys, numbers)
            distance = self._combined(mutual, panel.spread, None if self.state is None else self.state.memory(tokens))
        return self.comparison.predict(fusion, margin, score, distance)

    def image_statistics(self) -> ImageStatistics:
        """Scores of the panel's images; few maps are in memory at a time."""
        panel, fusion = self._panel, self._fusion
        if panel is None or fusion is None:
            return ImageStatistics(*torch.empty(4, 0))
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        scored = self.comparison.text.region.scored
        for margin, score, distance in zip(panel.margin.split(8), panel.score.split(8), panel.distance.split(8), strict=True):
            raw = self.comparison.predict(fusion, margin, score, distance)
            values = raw.anomaly_map.flatten(1) if scored is None else raw.anomaly_map[:, scored]
            lowest, highest = values.aminmax(dim=1)
            parts.append((lowest, highest, raw.pred_score))
        lowest, highest, scores = (torch.cat(values).cpu() for values in zip(*parts, strict=True))
        return ImageStatistics(lowest, highest, scores, torch.full_like(highest, UNKNOWN_LABEL))

    def _see(self, loader: DataLoader) -> Panel | None:
        """The panel, whose images are compared with each other; ``None`` if it has less than two."""
        paths: list[str] = []
        seen: list[tuple[Tensor, Tensor, Tokens]] = []
        to_memory: list[Tensor] = []
        for batch in tqdm(loader, desc="Seeing the lot", leave=False):
            if not batch.image_path:
                continue
            evidence, found = self.comparison.encode(*self.ready(batch))
            halved = Tokens([each.half() for each in found.separate], [each.half() for each in found.joint])
            seen.append((self.comparison.margin(evidence), evidence.score, halved))
            if self.state is not None:
                to_memory.append(self.comparison.combined(*self.state.memory(found)))
            paths += [str(path) for path in batch.image_path]
        if len(paths) < 2:
            return None
        with full_precision(seen[0][0]):  # autocast joins no half-precision tokens on a CPU
            return self._panel_of(paths, seen, to_memory)

    def _panel_of(self, paths: list[str], seen: list[tuple[Tensor, Tensor, Tokens]], to_memory: list[Tensor]) -> Panel:
        """The panel of images whose margins, scores and tokens, and distances to good images, have been found."""
        margin, score = torch.cat([part[0] for part in seen]), torch.cat([part[1] for part in seen])
        tokens = Tokens(
            [torch.cat(layers) for layers in zip(*(part[2].separate for part in seen), strict=True)],
            [torch.cat(layers) for layers in zip(*(part[2].joint for part in seen), strict=True)],
        )
        spread = torch.stack([spread_of(layer) for layer in tokens.separate])
        joint_spread = torch.stack([spread_of(layer) for layer in tokens.joint]) if tokens.joint else None
        compared = self._compared(tokens, joint_spread)
        keys = [layer[:, self._sparse(number)] for number, layer in enumerate(compared)]
        mutual = self._mutual(compared, keys, range(len(paths)))
        distance = self._combined(mutual, spread, None)
        if to_memory:
            distance = (distance + torch.cat(to_memory)) / 2
        numbers = {path: number for number, path in enumerate(paths)}
        return Panel(keys, spread, joint_spread, numbers, margin, score, distance)

    def _compared(self, tokens: Tokens, joint_spread: Tensor | None) -> list[Tensor]:
        """What is compared ``(B, L, C)``, in half precision: the tokens of each layer, and those of all layers together."""
        layers: list[Tensor] = [*tokens.separate]
        if joint_spread is not None:
            layers.append(joined(tokens.joint, joint_spread))
        return [self._projected(layer).half() for layer in layers]

    def _projected(self, tokens: Tensor) -> Tensor:
        projection = random_projection(tokens.shape[-1], self.seed)
        return tokens if projection is None else tokens.float() @ projection.to(tokens.device)

    def _grid(self, layer: int) -> tuple[int, int]:
        """Rows and columns of what is compared; the joint tokens are on the finest grid."""
        grids = self.comparison.source.grids
        return grids[layer] if layer < len(grids) else grids[0]

    def _sparse(self, layer: int) -> Tensor:
        """Numbers of the tokens of a panel's image that others are compared with."""
        grid = self._grid(layer)
        return sparse_numbers(self.comparison.text.region.token_numbers(grid), grid)

    def _mutual(self, layers: Sequence[Tensor], keys: Sequence[Tensor], own: Sequence[int | None]) -> list[Tensor]:
        """`mutual_distances` ``(B, L)``, one tensor of what is compared."""
        return [mutual_distances(tokens, others, own) for tokens, others in zip(layers, keys, strict=True)]

    def _combined(self, mutual: Sequence[Tensor], spread: Tensor, to_memory: Distances | None) -> Tensor:
        """Distances as maps: those to good images count as much as those to the batch, where there are any."""
        separate = [each / scale for each, scale in zip(mutual, spread, strict=False)]  # the joint ones are in units already
        distance = self.comparison.combined(separate, mutual[-1] if len(mutual) > len(spread) else None)
        return distance if to_memory is None else (distance + self.comparison.combined(*to_memory)) / 2

    def _fuse(self, panel: Panel) -> Fusion:
        """What is usual of the half of the panel that looks most normal."""
        finest = self.comparison.text.region.token_numbers(self.comparison.grid).to(panel.score.device)
        distance = panel.distance.flatten(1)[:, finest]
        normal = distance.amax(1).argsort()[: max(1, len(distance) // 2)]
        margins = panel.margin[normal].flatten(1)[:, finest]
        return Fusion(usual(margins), usual(distance[normal]), usual(panel.score[normal]), self.text_weight)


def random_projection(width: int, seed: int) -> Tensor | None:
    """Gaussian projection ``(C, PROJECTED_WIDTH)`` that keeps lengths in expectation; ``None`` for tokens as narrow already."""
    if width <= PROJECTED_WIDTH:
        return None
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(width, PROJECTED_WIDTH, generator=generator) / math.sqrt(PROJECTED_WIDTH)


def choose_panel(images: int, seed: int, size: int = PANEL) -> list[int]:
    """Numbers, in their order, of the images of a batch that all are compared with: all, or ``size`` of them by chance."""
    return sorted(torch.randperm(images, generator=torch.Generator().manual_seed(seed))[:size].tolist())


def panel_loader(loaders: DataLoader | Sequence[DataLoader], seed: int) -> DataLoader:
    """A loader of the images of a run that all are compared with, whichever part of them this process then scores.

    Args:
        loaders: Loaders of the run. A data set with an attribute ``whole`` is a part of that, such as what is left to do.
        seed: Seed of the choice.
    """
    all_loaders = list(loaders) if isinstance(loaders, list | tuple) else [loaders]
    first: Any = all_loaders[0]
    images: Any = ConcatDataset([getattr(loader.dataset, "whole", loader.dataset) for loader in all_loaders])
    panel = Subset(images, choose_panel(len(images), seed))
    size = first.batch_size or getattr(first.batch_sampler, "batch_size", 1)
    return DataLoader(panel, size, num_workers=first.num_workers, collate_fn=first.collate_fn)


def mutual_distances(tokens: Tensor, panel: Tensor, own: Sequence[int | None]) -> Tensor:
    """How far each token of each image is from the images of a panel, at one layer.

    Args:
        tokens: Tokens ``(B, L, C)``, in any precision.
        panel: Those of the panel ``(N, L', C)``.
        own: Each image's own number in the panel, with which it is not compared; ``None`` if it is not there.

    Returns:
        Distances ``(B, L)`` to the nearest token of each other image, the lowest `LOWEST_SHARE` of them averaged (at least
        one).
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
