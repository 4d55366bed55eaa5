"""How DPCLIP judges a whole unlabelled lot: all images are seen first, then each is judged by the others."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from anomalib.data import ImageBatch, InferenceBatch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from anomalib_dpclip.method.evidence_fusion import GAUSSIAN_MAD, memory_share
from anomalib_dpclip.method.memory import smooth_distance
from anomalib_dpclip.method.mutual_scoring import groups, mutual_distances, random_projection
from anomalib_dpclip.method.torch_model import DPCLIPModel
from anomalib_dpclip.model.calibration_statistics import UNKNOWN_LABEL, SeenImages
from anomalib_dpclip.model.few_shot import KnowsReferences
from anomalib_dpclip.model.normalisation import MIN_GAP
from anomalib_dpclip.model.post_processor import DPCLIPPostProcessor
from anomalib_dpclip.model.thresholds import NO_PROMISE

logger = logging.getLogger(__name__)

OUTLYING = 3.0
"""Deviations above the median, robustly measured, from which an image of an unlabelled lot is called anomalous."""

SEPARABLE = 0.75
"""Share of the scores' variance that lies between two kinds, from which there plainly are two kinds (Otsu's criterion)."""


class JudgedLot(NamedTuple):
    """What a lot says of its images.

    Attributes:
        evidence: The text's difference ``(rows, columns)`` and the distance to the other images ``(L,)`` of each, by path.
        share: Of the distance in the maps.
    """

    evidence: dict[str, tuple[Tensor, Tensor]]
    share: Tensor

    def maps(self, model: DPCLIPModel, paths: Sequence[str]) -> Tensor:
        """Maps ``(B, H, W)`` of images of the lot, on the CPU."""
        differences, distances = (torch.stack(parts) for parts in zip(*(self.evidence[path] for path in paths), strict=True))
        return model.fused_map(differences, distances, self.share)

    def extremes(self, model: DPCLIPModel) -> SeenImages:
        """Lowest and highest value of each map; few maps are in memory at a time."""
        paths = list(self.evidence)
        parts = [self.maps(model, paths[start : start + 8]).flatten(1).aminmax(dim=1) for start in range(0, len(paths), 8)]
        floor, peak = (torch.cat(values) for values in zip(*parts, strict=True))
        return SeenImages(floor, peak, peak, torch.full_like(peak, UNKNOWN_LABEL))


class JudgesLot(KnowsReferences):
    """The part of `DPCLIP` that lets the images of a run judge each other.

    Attributes:
        lot: Whether they do.
    """

    lot: bool
    _judged: JudgedLot | None = None

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
        mutual = torch.empty(len(paths), tokens.shape[2])
        for group in groups(len(paths), self.seed):
            mutual[group] = mutual_distances(tokens[group].to(self.device)).cpu()
        if self.model.memory is not None:  # what the photos say counts as much as what the lot says
            mutual = (mutual + distances) / 2
        grid = self.model.backbone.grid
        smooth = smooth_distance(mutual.unflatten(-1, grid))
        # The half that looks most normal gives the scales.
        normal = smooth.flatten(1).amax(1).argsort()[: max(1, len(paths) // 2)]
        pairs = torch.stack([differences[normal].flatten(), smooth[normal].flatten()], dim=1)
        share = self.model.memory.share.cpu() if self.model.memory is not None else torch.tensor(memory_share(pairs, pairs[:0]))
        self._judged = JudgedLot(dict(zip(paths, zip(differences, mutual, strict=True), strict=True)), share)
        seen = self._judged.extremes(self.model)
        if mostly_anomalous(seen.peak):
            logger.warning(
                "more than half of this lot looks unlike the rest, and a lot is judged by what most of its images look like. "
                "If most are damaged, give some good photos with --model.few_shot_source"
            )
        if calibrate:
            self._calibrate_on_lot(seen)

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
        maps = self._judged.maps(self.model, [str(path) for path in batch.image_path]).to(self.device)
        return InferenceBatch(anomaly_map=maps, pred_score=maps.amax(dim=(-2, -1)))

    def _calibrate_on_lot(self, seen: SeenImages) -> None:
        processor = self.post_processor
        if not isinstance(processor, DPCLIPPostProcessor):
            return
        median = seen.peak.median()
        limit = (median + OUTLYING * GAUSSIAN_MAD * (seen.peak - median).abs().median()).item() + MIN_GAP
        calibration, domain = processor.calibration, self.model.domain
        calibration.set_ranges(seen)
        promise = f"{OUTLYING:g} deviations above the median of a lot of {len(seen.peak)} unlabelled images; {NO_PROMISE}"
        calibration.set_thresholds(calibration.thresholds_at(limit, domain, promise), seen, domain)


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
