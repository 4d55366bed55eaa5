"""How DPCLIP judges a whole unlabelled lot: all images are seen first, then each is judged by the others."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from anomalib.data import ImageBatch, InferenceBatch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from anomalib_dpclip.method.evidence_fusion import GAUSSIAN_MAD, memory_share
from anomalib_dpclip.method.mutual_scoring import groups, mutual_distances, random_projection
from anomalib_dpclip.model.few_shot import KnowsReferences
from anomalib_dpclip.model.normalisation import MIN_GAP, separate_control_points
from anomalib_dpclip.model.post_processor import DPCLIPPostProcessor

logger = logging.getLogger(__name__)

OUTLYING = 3.0
"""Deviations above the median, robustly measured, from which an image of an unlabelled lot is called anomalous."""

SEPARABLE = 0.75
"""Share of the scores' variance that lies between two kinds, from which there plainly are two kinds (Otsu's criterion)."""


class JudgesLot(KnowsReferences):
    """The part of `DPCLIP` that lets the images of a run judge each other.

    Attributes:
        lot: Whether they do.
    """

    lot: bool
    _judged: dict[str, tuple[Tensor, Tensor]] | None = None
    """Difference ``(rows, columns)`` and distance ``(L,)`` of each image, by path."""
    _lot_share: Tensor | None = None

    def follow_lot(self, loaders: Any, *, calibrate: bool) -> None:
        """See all images of a run, and let them judge each other.

        Args:
            loaders: Of the run.
            calibrate: Whether to set the thresholds from their scores.
        """
        self._judged = None
        if not self.lot:
            return
        paths, differences, tokens, distances = self._see(loaders)
        if len(paths) < 2:
            logger.warning("a lot of %d images cannot judge itself: its images are judged by the text alone", len(paths))
            return
        mutual = torch.zeros(len(paths), tokens.shape[2])
        judged = self.model.judged_tokens.cpu()
        for group in groups(len(paths), self.seed):
            compared = tokens[group] if self.model.ignored is None else tokens[group][:, :, judged]
            mutual[group[:, None], judged] = mutual_distances(compared.to(self.device)).cpu()
        if self.model.memory is not None:  # what the photos say counts as much as what the lot says
            mutual = (mutual + distances) / 2
        smooth = self.model.smoothed(mutual).flatten(1)[:, judged]
        # The half that looks most normal gives the scales.
        normal = smooth.amax(1).argsort()[: max(1, len(paths) // 2)]
        pairs = torch.stack([differences[normal].flatten(1)[:, judged].flatten(), smooth[normal].flatten()], dim=1)
        share = self.model.memory.share.cpu() if self.model.memory is not None else torch.tensor(memory_share(pairs, pairs[:0]))
        self._lot_share = share
        self._judged = dict(zip(paths, zip(differences, mutual, strict=True), strict=True))
        floor, peaks = self._extremes(paths)
        if mostly_anomalous(peaks):
            logger.warning(
                "more than half of this lot looks unlike the rest, and a lot is judged by what most of its images look like. "
                "If most are damaged, give some good photos with --model.few_shot_source"
            )
        if calibrate:
            self._calibrate_on_lot(floor, peaks)

    @torch.no_grad()
    def _see(self, loaders: Any) -> tuple[list[str], Tensor, Tensor, Tensor]:
        """Paths, text differences, tokens and distances to the photos of all images, on the CPU."""
        projection = random_projection(self.model.backbone.width, self.seed)
        paths: list[str] = []
        seen: list[tuple[Tensor, Tensor, Tensor]] = []
        for batch in _batches(loaders):
            if not batch.image_path:
                continue
            image = self.pre_processor.transform(batch.image.to(self.device))
            difference, tokens = self.model.evidence(image, self.anchors_of(batch))
            memory = self.model.memory
            distance = tokens.new_zeros(len(tokens), tokens.shape[2]) if memory is None else memory(tokens)
            compared = tokens if projection is None else tokens @ projection.to(tokens)
            seen.append((difference.cpu(), compared.half().cpu(), distance.cpu()))
            paths += [str(path) for path in batch.image_path]
        if not seen:
            return [], torch.empty(0), torch.empty(0, 0, 0, 0), torch.empty(0)
        differences, all_tokens, distances = (torch.cat(parts) for parts in zip(*seen, strict=True))
        return paths, differences, all_tokens, distances

    def judge(self, batch: ImageBatch) -> InferenceBatch | None:
        """What the lot says of a batch of its images; ``None`` where there is no lot."""
        if self._judged is None or not batch.image_path:
            return None
        maps = self._maps([str(path) for path in batch.image_path]).to(self.device)
        return InferenceBatch(anomaly_map=maps, pred_score=maps.amax(dim=(-2, -1)))

    def _maps(self, paths: Sequence[str]) -> Tensor:
        """Maps ``(B, H, W)`` of images of the lot, on the CPU."""
        assert self._judged is not None
        assert self._lot_share is not None
        differences, distances = (torch.stack(parts) for parts in zip(*(self._judged[path] for path in paths), strict=True))
        return self.model.fused_map(differences, distances, self._lot_share)

    def _extremes(self, paths: Sequence[str]) -> tuple[float, Tensor]:
        """Lowest value of all maps, and each map's peak ``(N,)``; few maps are in memory at a time."""
        floor, peaks = 1.0, []
        for start in range(0, len(paths), 8):
            maps = self._maps(paths[start : start + 8])
            judged = maps if self.model.ignored is None else maps[:, self.model.ignored.judged.cpu()]
            floor = min(floor, judged.min().item())
            peaks.append(maps.amax(dim=(-2, -1)))
        return floor, torch.cat(peaks)

    def _calibrate_on_lot(self, floor: float, peaks: Tensor) -> None:
        processor = self.post_processor
        if not isinstance(processor, DPCLIPPostProcessor):
            return
        calibration = processor.calibration
        median = peaks.median()
        limit = (median + OUTLYING * GAUSSIAN_MAD * (peaks - median).abs().median()).item() + MIN_GAP
        device = calibration.map_range.device
        bounds = torch.tensor([floor, peaks.max().item()], device=device)
        calibration.map_range.copy_(bounds)
        calibration.detection_range.copy_(bounds)
        low, least, middle, most, high = (
            calibration.fuse(value, value, self.model.domain).item()
            for value in torch.tensor([0.0, peaks.min().item(), limit, peaks.max().item(), 1.0], device=device)
        )
        calibration.score_knots.copy_(separate_control_points(low, least, middle, most, high))
        calibration.map_knots.copy_(separate_control_points(0.0, floor, limit, peaks.max().item(), 1.0))
        calibration.is_set.fill_(True)


def mostly_anomalous(scores: Tensor) -> bool:
    """Whether scores ``(N,)`` plainly are of two kinds and the higher one is the larger (Otsu's split)."""
    ranked = scores.double().sort().values
    count = len(ranked)
    total = ranked.var(unbiased=False)
    if count < 4 or total == 0:
        return False
    below = torch.arange(1, count, dtype=torch.double)
    means_below = ranked.cumsum(0)[:-1] / below
    means_above = (ranked.sum() - ranked.cumsum(0)[:-1]) / (count - below)
    between = below * (count - below) / count**2 * (means_above - means_below).square()
    split = int(between.argmax())
    return bool(between[split] / total > SEPARABLE and count - split - 1 > count / 2)


def _batches(loaders: Any) -> Iterable[ImageBatch]:
    """All batches of a run, in every process, whichever part of them it then judges."""
    for loader in loaders if isinstance(loaders, list | tuple) else [loaders]:
        # A loader of its own: the sampler of the run's may not be iterated twice at a time.
        size = loader.batch_size or getattr(loader.batch_sampler, "batch_size", 1)
        own: DataLoader = DataLoader(loader.dataset, size, num_workers=loader.num_workers, collate_fn=loader.collate_fn)
        yield from tqdm(own, desc="Seeing the lot", leave=False)
