"""How DPCLIP judges a whole unlabelled lot: a panel of its images is seen first, then each image is judged by the panel."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from anomalib.data import ImageBatch, InferenceBatch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Subset
from tqdm.auto import tqdm

from anomalib_dpclip.method.evidence_fusion import GAUSSIAN_MAD, memory_weight
from anomalib_dpclip.method.mutual_scoring import choose_panel, mutual_distances, random_projection
from anomalib_dpclip.post_processing.calibration_statistics import UNKNOWN_LABEL, ImageStatistics
from anomalib_dpclip.post_processing.normalisation import MIN_GAP
from anomalib_dpclip.post_processing.post_processor import DPCLIPPostProcessor
from anomalib_dpclip.post_processing.thresholds import NO_GUARANTEE, Thresholds
from anomalib_dpclip.references.few_shot import KnowsReferences

logger = logging.getLogger(__name__)

OUTLYING = 3.0
"""Deviations above the median, robustly measured, from which an image of an unlabelled lot is called anomalous."""

SEPARABLE = 0.75
"""Share of the scores' variance that lies between two kinds, from which there plainly are two kinds (Otsu's criterion)."""


@dataclass
class Panel:
    """Images that judge a lot, and what is known of themselves.

    Attributes:
        tokens: What others are compared with ``(N, T, L, C)``, in half precision.
        number: Each image's number, by its path.
        difference: The text's differences ``(N, rows, columns)``.
        distance: To the rest of the panel, and to photos of the target where there are any, ``(N, L)``.
        score: Of the whole images, ``(N,)``.
        share: Of the distance in the maps.
    """

    tokens: Tensor
    number: dict[str, int]
    difference: Tensor
    distance: Tensor
    score: Tensor
    share: Tensor = field(default_factory=lambda: torch.tensor(1.0))


class JudgesLot(KnowsReferences):
    """The part of `DPCLIP` that lets the images of a run judge each other.

    Attributes:
        lot: Whether they do.
    """

    lot: bool
    _panel: Panel | None = None

    def follow_lot(self, loaders: Any, *, calibrate: bool) -> None:
        """See the panel of a run's images, in every process the same.

        Args:
            loaders: Of the run.
            calibrate: Whether to set the thresholds from the panel's scores.
        """
        self._panel = None
        if not self.lot:
            return
        panel = self._see(panel_loader(loaders, self.seed))
        if panel is None:
            logger.warning("a lot of less than two images cannot judge itself: its images are judged by the text alone")
            return
        panel.share = self._share(panel)
        self._panel = panel
        seen = self._scores_of(panel)
        if mostly_anomalous(seen.map_max):
            logger.warning(
                "more than half of this lot looks unlike the rest, and a lot is judged by what most of its images look like. "
                "If most are damaged, give some good photos with --model.few_shot_source"
            )
        if calibrate:
            self._calibrate_on_lot(seen)

    @torch.no_grad()
    def _see(self, loader: DataLoader) -> Panel | None:
        """The panel, whose images have judged each other; ``None`` if it has less than two."""
        paths: list[str] = []
        parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for batch in tqdm(loader, desc="Seeing the lot", leave=False):
            if batch.image_path:
                image = self.pre_processor.transform(batch.image.to(self.device))
                seen = self.model.evidence(image, self.anchors_of(batch))
                parts.append((self._compared(seen.tokens), seen.difference, self._to_photos(seen.tokens), seen.score))
                paths += [str(path) for path in batch.image_path]
        if len(paths) < 2:
            return None
        tokens, difference, to_photos, score = (torch.cat(values) for values in zip(*parts, strict=True))
        distance = self._averaged(self._mutual(tokens, tokens, range(len(tokens))), to_photos)
        return Panel(tokens, {path: number for number, path in enumerate(paths)}, difference, distance, score)

    def _compared(self, tokens: Tensor) -> Tensor:
        """What is compared of centred tokens ``(B, T, L, C)``: those that are judged, ``(B, T, L', P)``."""
        projection = random_projection(self.model.backbone.width, self.seed)
        judged = tokens if self.model.ignored is None else tokens[:, :, self.model.judged_tokens]
        return (judged if projection is None else judged @ projection.to(judged)).half()

    def _mutual(self, compared: Tensor, panel: Tensor, own: Sequence[int | None]) -> Tensor:
        """`mutual_distances` ``(B, L)``, 0 where nothing is judged."""
        distances = mutual_distances(compared, panel, own)
        everywhere = distances.new_zeros(len(distances), math.prod(self.model.backbone.grid))
        everywhere[:, self.model.judged_tokens] = distances
        return everywhere

    def _to_photos(self, tokens: Tensor) -> Tensor:
        """Distances ``(B, L)`` to photos of the target; 0 without any."""
        memory = self.model.memory
        return tokens.new_zeros(len(tokens), tokens.shape[2]) if memory is None else memory(tokens)

    def _averaged(self, mutual: Tensor, to_photos: Tensor) -> Tensor:
        """What photos of the target say counts as much as what the lot says, where there are any."""
        return mutual if self.model.memory is None else (mutual + to_photos) / 2

    def _share(self, panel: Panel) -> Tensor:
        """How much the lot counts beside the text: as much as the photos do, or by the half that looks most normal."""
        if self.model.memory is not None:
            return self.model.memory.share
        judged = self.model.judged_tokens
        smooth = self.model.smoothed(panel.distance).flatten(1)[:, judged]
        normal = smooth.amax(1).argsort()[: len(smooth) // 2]
        pairs = torch.stack([panel.difference[normal].flatten(1)[:, judged].flatten(), smooth[normal].flatten()], dim=1)
        return torch.tensor(memory_weight(pairs, pairs[:0]), device=smooth.device)

    def judge(self, batch: ImageBatch) -> InferenceBatch | None:
        """What the lot says of a batch of its images; ``None`` where there is no lot."""
        panel = self._panel
        if panel is None or not batch.image_path:
            return None
        image: Any = batch.image
        numbers = [panel.number.get(str(path)) for path in batch.image_path]
        if None in numbers:
            seen = self.model.evidence(image, self.anchors_of(batch))
            mutual = self._mutual(self._compared(seen.tokens), panel.tokens, numbers)
            difference, distance, score = seen.difference, self._averaged(mutual, self._to_photos(seen.tokens)), seen.score
        else:  # all have been seen already
            difference, distance, score = (part[numbers] for part in (panel.difference, panel.distance, panel.score))
        maps, fused = self.model.fused_prediction(difference, distance, panel.share, score)
        return InferenceBatch(anomaly_map=maps, pred_score=fused)

    def require_references(self) -> None:
        """See `KnowsReferences.require_references`; and say that no lot goes into a file."""
        super().require_references()
        if self.lot:
            logger.warning("an exported file sees one image at a time: it judges without the lot, as with --model.lot false")

    def _scores_of(self, panel: Panel) -> ImageStatistics:
        """The panel's scores; few maps are in memory at a time."""
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for rows in zip(panel.difference.split(8), panel.distance.split(8), panel.score.split(8), strict=True):
            maps, score = self.model.fused_prediction(rows[0], rows[1], panel.share, rows[2])
            judged = maps.flatten(1) if self.model.ignored is None else maps[:, self.model.ignored.judged]
            lowest, highest = judged.aminmax(dim=1)
            parts.append((lowest, highest, score))
        floor, peak, scores = (torch.cat(values).cpu() for values in zip(*parts, strict=True))
        return ImageStatistics(floor, peak, scores, torch.full_like(peak, UNKNOWN_LABEL))

    def _calibrate_on_lot(self, seen: ImageStatistics) -> None:
        processor = self.post_processor
        if not isinstance(processor, DPCLIPPostProcessor):
            return
        calibration, domain = processor.calibration, self.model.domain
        calibration.set_ranges(seen)
        image, pixel = (mad_threshold(scores) for scores in (calibration.fused(seen, domain), seen.map_max))
        threshold_basis = (
            f"{OUTLYING:g} deviations above the median of {len(seen.map_max)} images of an unlabelled lot; {NO_GUARANTEE}"
        )
        calibration.set_thresholds(Thresholds(image, pixel, threshold_basis), seen, domain)


def panel_loader(loaders: DataLoader | Sequence[DataLoader], seed: int) -> DataLoader:
    """A loader of the images of a run that judge all of them, whichever part of them this process then judges.

    Args:
        loaders: Of the run. A data set with an attribute ``whole`` is a part of that, such as what is left to do.
        seed: Of the choice.
    """
    all_loaders = list(loaders) if isinstance(loaders, list | tuple) else [loaders]
    first: Any = all_loaders[0]
    images: Any = ConcatDataset([getattr(loader.dataset, "whole", loader.dataset) for loader in all_loaders])
    panel = Subset(images, choose_panel(len(images), seed))
    size = first.batch_size or getattr(first.batch_sampler, "batch_size", 1)
    return DataLoader(panel, size, num_workers=first.num_workers, collate_fn=first.collate_fn)


def mad_threshold(scores: Tensor) -> float:
    """The score ``()`` from which one of ``(N,)``, most of them normal, is no longer like the others."""
    median = scores.median()
    return (median + OUTLYING * GAUSSIAN_MAD * (scores - median).abs().median()).item() + MIN_GAP


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
