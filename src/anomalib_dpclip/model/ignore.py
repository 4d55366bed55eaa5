"""How DPCLIP is told where nothing is to be judged: from a picture, or from a checkpoint that was made with one."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from anomalib.data import ImageBatch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from anomalib_dpclip.clip.preprocessing import OPENAI
from anomalib_dpclip.data.images import ImageReadError, photo_size, read_mask
from anomalib_dpclip.method.ignored_region import IgnoredRegion
from anomalib_dpclip.metrics.pixel_metrics import PixelMetric
from anomalib_dpclip.model.target import KnowsTarget

logger = logging.getLogger(__name__)

IGNORED_PREFIX = "model.ignored."
"""Beginning of the names of an ignored region's state."""

_MIN_SHARE = 1e-6
"""Of an ignored pixel in a resized one, from which that is ignored too; less is rounding."""


class IgnoresRegion(KnowsTarget):
    """The part of `DPCLIP` that knows where nothing is to be judged."""

    pre_processor: Any
    evaluator: Any
    _ignores_by_choice = False
    """Whether an argument says so, which comes before what a checkpoint brings."""

    def ignore_region(self, path: str | Path | None) -> None:
        """Judge nothing where a picture is white.

        Args:
            path: Picture of the photos' size; ``None`` for none.

        Raises:
            ImageReadError: If it cannot be read.
            ValueError: If it leaves nothing to judge, or nothing to ignore.
        """
        if path is None:
            return
        ignored = torch.from_numpy(read_mask(path)).bool()
        size = self.model.input_size
        rows, columns = self.model.backbone.grid
        grid = (self.model.tiles * rows, self.model.tiles * columns)
        interpolation = InterpolationMode(getattr(self.pre_processor, "preprocessing", OPENAI).interpolation)
        # As photos are resized: whatever an ignored pixel has a share in is ignored.
        shares = resize(ignored[None].float(), list(size), interpolation, antialias=True)[0].abs()
        try:
            self.model.ignored = IgnoredRegion(shares < _MIN_SHARE, grid, (ignored.shape[1], ignored.shape[0]))
        except ValueError as error:
            raise ValueError(f"--model.ignore {path}: {error}") from error
        self._ignores_by_choice = True

    def fit_ignored_to(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """Take over the region of a state dict, unless an argument has named another one.

        Returns:
            State of the region in force, to be loaded in the place of the other.
        """
        stored = {name: value for name, value in state.items() if name.startswith(IGNORED_PREFIX)}
        if self._ignores_by_choice and self.model.ignored is not None:
            own = {IGNORED_PREFIX + name: value for name, value in self.model.ignored.state_dict().items()}
            if own.keys() != stored.keys() or not all(torch.equal(own[name].cpu(), stored[name].cpu()) for name in own):
                logger.warning(
                    "the thresholds of the checkpoint were set without this --model.ignore: calibrate with `anomalib validate`"
                )
            return own
        self.model.ignored = None
        if stored:
            judged, tokens, size = (stored[IGNORED_PREFIX + name] for name in ("judged", "tokens", "photo_size"))
            self.model.ignored = IgnoredRegion(judged, tuple(tokens.shape), tuple(size.tolist())).to(self.model.anchors.device)
        return stored

    def follow_ignored(self) -> None:
        """Leave ignored pixels out of the pixel metrics of a run."""
        judged = None if self.model.ignored is None else self.model.ignored.judged
        evaluator = self.evaluator
        for metric in [*evaluator.val_metrics, *evaluator.test_metrics] if evaluator else []:
            if isinstance(metric, PixelMetric):
                metric.histogram.judged = judged

    def require_photo_sizes(self, batch: ImageBatch) -> None:
        """Make sure that the photos of a batch have the size that the ignored region was drawn for.

        Raises:
            ValueError: If one has another; names it.
        """
        if self.model.ignored is None:
            return
        for path in batch.image_path or ():
            try:
                size = photo_size(path)
            except ImageReadError:  # not a file of ours to judge: whoever made the batch could read it
                continue
            self.model.ignored.require_size(*size, str(path))
