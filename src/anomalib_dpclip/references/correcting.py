"""Taking photos that were called anomalous wrongly for normal: into the memory, the corrections and the thresholds."""

from collections.abc import Callable
from functools import reduce
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor

from anomalib_dpclip.method.anomaly_map import anomaly_map
from anomalib_dpclip.method.corrections import Corrections, core
from anomalib_dpclip.method.evidence import Evidence
from anomalib_dpclip.method.image_score import min_max
from anomalib_dpclip.method.memory import TokenMemory
from anomalib_dpclip.method.torch_model import DPCLIPModel
from anomalib_dpclip.post_processing.calibration import Calibration
from anomalib_dpclip.references.reference_memory import thinned

SHIFTS = 3
"""So many times along either axis a photo is looked at, shifted by parts of a patch: what comes again is off by some pixels."""

LARGEST = 0.5
"""Share of an image's tokens that a nuisance covers at most. A photo that differs all over shows another look of the target."""


class Corrector:
    """Takes photos for normal that a model has called anomalous.

    Args:
        model: What is corrected.
        memory: Its own.
        calibration: What it calls anomalous; its thresholds may rise.
        normalise: CLIP's normalisation.
    """

    def __init__(
        self, model: DPCLIPModel, memory: TokenMemory, calibration: Calibration, normalise: Callable[[Tensor], Tensor]
    ) -> None:
        self.model, self.memory, self.calibration, self.normalise = model, memory, calibration, normalise
        bounds = torch.tensor([0.0, 1.0], device=model.anchors.device)
        low, high = calibration.detection_range
        self.standing = low + min_max(bounds, calibration.map_range) * (high - low)
        """Detection scores that count as much as a peak of 0, and of 1."""
        if model.detection == "projector":  # the peak itself stands for it
            self.standing = bounds
        none, full = calibration.fuse(bounds, self.standing, model.domain).tolist()
        self.threshold = min(calibration.thresholds.pixel, (calibration.thresholds.image - none) / (full - none))
        """On the raw map: an image that exceeds it is called anomalous."""

    @torch.no_grad()
    def correct(self, photos: Tensor, limit: int, seed: int) -> None:
        """Remember what photos show, and judge by it from now on.

        What was called anomalous in them, if it is at one place, joins the corrections, and everything else the memory. Where
        that else would still be called anomalous the thresholds rise a little.

        Args:
            photos: ``(K, 3, H, W)`` in [0, 1], of the model's size.
            limit: Tokens of each tap that the memory keeps at most.
            seed: Of the thinning.
        """
        model = self.model
        found = {index: correction for index, photo in enumerate(photos) if (correction := self._correction(photo)) is not None}
        known = [*([] if model.corrections is None else [model.corrections]), *found.values()]
        model.corrections = reduce(Corrections.joined, known) if known else None
        if found and model.corrections is not None:
            judged: list[Any] = [model.predict(self.normalise(photos[index, None]), model.anchors) for index in found]
            highest = map(max, zip(*(self._scores(each.anomaly_map, each.pred_score) for each in judged), strict=True))
            self.calibration.raise_thresholds(*highest, *model.corrections.thresholds.tolist())
        normal = [self._normal(photo, index in found) for index, photo in enumerate(photos)]
        tokens = thinned(torch.cat([self.memory.tokens, *normal], dim=1), limit, seed)
        model.memory = TokenMemory(tokens, self.memory.share.item(), int(self.memory.photos) + len(photos))

    def _correction(self, photo: Tensor) -> Corrections | None:
        """What was called anomalous at one place of a photo; ``None`` if nothing was, or the photo differs all over."""
        step, most = self.model.backbone.patch_size // SHIFTS, SHIFTS // 2
        offsets = sorted(product((step * shift for shift in range(-most, most + 1)), repeat=2), key=any)  # itself first
        seen = self._see(torch.stack([torch.roll(photo, offset, (-2, -1)) for offset in offsets]))
        distance = self.memory(seen.tokens)
        maps = anomaly_map(self.model.fused(seen.difference, distance, self.memory.share))
        image, pixel = self._scores(maps[:1], self.model.beside(maps, seen.score)[:1])
        if image <= self.calibration.thresholds.image and pixel <= self.calibration.thresholds.pixel:
            return None
        levels = maps.flatten(1)
        peak = levels.amax(dim=1, keepdim=True)
        # Where only the class token calls it anomalous, what that has seen is where the map is highest.
        least = torch.where(peak > self.threshold, self.threshold, levels.amin(dim=1, keepdim=True))
        blame = (levels > (least + peak) / 2).float().mean(dim=0, keepdim=True)
        blame[:, ~self._judged()] = 0
        places = core(blame)
        if places.float().mean() > LARGEST:
            return None
        looks = seen.tokens[:, :, places].mean(dim=2) + seen.means
        thresholds = torch.tensor(self.calibration.thresholds[:2], device=photo.device)
        return Corrections(blame, distance[:1], looks[None], self.standing, thresholds, self.model.backbone.grid)

    def _scores(self, maps: Tensor, beside: Tensor) -> tuple[float, float]:
        """Image score and peak of one raw map, as thresholds are on them; ``beside`` as of `DPCLIPModel.beside`."""
        peak = maps.amax(dim=(-2, -1))
        return self.calibration.fuse(peak, beside, self.model.domain).item(), peak.item()

    def _normal(self, photo: Tensor, is_corrected: bool) -> Tensor:
        """Tokens ``(T, N, C)`` of a photo that nothing explains."""
        seen = self._see(photo[None])
        normal = self._judged()
        if is_corrected and self.model.corrections is not None:
            distance = self.memory(seen.tokens)
            normal = normal & ~self.model.corrections(seen.tokens, seen.means, distance).flatten()
        return seen.tokens[0][:, normal].half()

    def _see(self, images: Tensor) -> Evidence:
        return self.model.unblurred_evidence(self.normalise(images), self.model.anchors)

    def _judged(self) -> Tensor:
        """Which tokens see nothing ignored ``(L,)`` bool."""
        judged = torch.zeros(prod(self.model.backbone.grid), dtype=torch.bool, device=self.model.anchors.device)
        judged[self.model.judged_tokens] = True
        return judged
