"""The contact sheet of a test run: one picture of its mistakes, its narrow decisions and its clear ones."""

import heapq
import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from anomalib.data import ImageBatch
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure, SubFigure
from PIL import Image
from torch import Tensor
from torch.nn import functional

from anomalib_dpclip.data.images import ImageReadError, read_image
from anomalib_dpclip.files.atomic_write import atomic_write
from anomalib_dpclip.model.heat_map import heat_map

logger = logging.getLogger(__name__)

CONTACT_SHEET = "contact_sheet.png"
_NAME_LENGTH = 26
_LEGEND = "Image scores, the threshold is 0.5. Colours: anomaly map, red is most anomalous. White line: ground truth."


class Section(NamedTuple):
    """A row of the sheet: which images it shows, and in which order.

    Attributes:
        title: Heading.
        truth: Whether its images are anomalous.
        called: Whether the model calls them so.
        highest_first: Whether the highest scores come first, or the lowest.
    """

    title: str
    truth: bool
    called: bool
    highest_first: bool


SECTIONS = (
    Section("Missed defects: anomalous, called normal", truth=True, called=False, highest_first=False),
    Section("False alarms: normal, called anomalous", truth=False, called=True, highest_first=True),
    Section("Narrowest finds: anomalous, called anomalous", truth=True, called=True, highest_first=False),
    Section("Narrowest passes: normal, called normal", truth=False, called=False, highest_first=True),
    Section("Clearest finds: anomalous, called anomalous", truth=True, called=True, highest_first=True),
    Section("Clearest passes: normal, called normal", truth=False, called=False, highest_first=False),
)


class Thumbnail(NamedTuple):
    """What the sheet keeps of an image.

    Attributes:
        name: Its last folder and name.
        score: Image score.
        picture: Its heat map, small, with a line around the ground truth.
    """

    name: str
    score: float
    picture: Image.Image


class ContactSheet(Callback):
    """Draws ``contact_sheet.png`` at the end of a test: false alarms and misses first, then the narrowest and clearest.

    Only the thumbnails that are to be shown are kept, however large the test set. With several devices the sheet is of
    the first one's images.

    Args:
        columns: Images a row.
        side: Longer side of a thumbnail in pixels.
    """

    def __init__(self, columns: int = 6, side: int = 192) -> None:
        self.columns, self.side = columns, side
        self._rows = [_Row(section, columns) for section in SECTIONS]

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier run."""
        del trainer, pl_module
        self._rows = [_Row(section, self.columns) for section in SECTIONS]

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: ImageBatch, *args: Any, **kwargs: Any
    ) -> None:
        """Look at a batch, unless it lacks labels, decisions or maps."""
        del pl_module, outputs, args, kwargs
        paths, maps, masks = batch.image_path, batch.anomaly_map, batch.gt_mask
        scores, truths, calls = batch.pred_score, batch.gt_label, batch.pred_label
        if paths is None or maps is None or any(value is None for value in (scores, truths, calls)):
            return
        if not trainer.is_global_zero:
            return
        decisions = zip(scores.tolist(), truths.tolist(), calls.tolist(), strict=True)
        for index, (score, truth, called) in enumerate(decisions):
            rows = [row for row in self._rows if (row.section.truth, row.section.called) == (truth, called)]
            wanted = [row for row in rows if row.count(score)]
            if wanted:
                mask = None if masks is None else masks[index]
                try:
                    thumbnail = self._thumbnail(Path(paths[index]), score, maps[index], mask)
                except ImageReadError as error:  # the model's reader was content with it: no reason to end the test
                    logger.warning("not on the contact sheet: %s", error)
                    continue
                for row in wanted:
                    row.add(thumbnail)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the sheet and write it, all or nothing, beside the other results."""
        del pl_module
        if not trainer.is_global_zero or not any(row.total for row in self._rows):
            return
        path = Path(trainer.default_root_dir) / CONTACT_SHEET
        with atomic_write(path) as unfinished:
            _draw(self._rows, self.columns).savefig(unfinished, format="png", dpi=120)
        logger.info("contact sheet: %s", path)

    def _thumbnail(self, path: Path, score: float, heat: Tensor, mask: Tensor | None) -> Thumbnail:
        photo = read_image(path)
        photo.thumbnail((self.side, self.side))
        size = (photo.height, photo.width)
        truth = None if mask is None else _resize(mask, size, "nearest") > 0
        picture = heat_map(photo, _resize(heat, size, "bilinear").clip(0, 1), truth)
        return Thumbnail(f"{path.parent.name}/{path.name}"[-_NAME_LENGTH:], score, picture)


class _Row:
    """The foremost images of a section, and how many belong to it."""

    def __init__(self, section: Section, limit: int) -> None:
        self.section, self.limit = section, limit
        self.total = 0
        self._heap: list[tuple[float, int, Thumbnail]] = []

    def count(self, score: float) -> bool:
        """Count an image of the section; tells whether it is among the foremost so far."""
        self.total += 1
        return len(self._heap) < self.limit or self._rank(score) > self._heap[0][0]

    def add(self, thumbnail: Thumbnail) -> None:
        """Keep the thumbnail of the image counted last."""
        # The count keeps thumbnails, which have no order, from being compared.
        heapq.heappush(self._heap, (self._rank(thumbnail.score), -self.total, thumbnail))
        if len(self._heap) > self.limit:
            heapq.heappop(self._heap)

    @property
    def thumbnails(self) -> list[Thumbnail]:
        """The foremost first."""
        return [thumbnail for _, _, thumbnail in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]

    def _rank(self, score: float) -> float:
        return score if self.section.highest_first else -score


def _resize(values: Tensor, size: tuple[int, int], mode: str) -> npt.NDArray[np.float32]:
    """Resize one map (H, W)."""
    align = False if mode == "bilinear" else None
    resized = functional.interpolate(values.float()[None, None], size, mode=mode, align_corners=align)
    return resized[0, 0].cpu().numpy()


def _draw(rows: list[_Row], columns: int) -> Figure:
    heights = [2.0 if row.total else 0.4 for row in rows]
    figure = Figure(figsize=(1.6 * columns, sum(heights) + 0.3), layout="constrained")
    figure.suptitle(_LEGEND, x=0.01, ha="left", fontsize=8)
    strips = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights)
    for row, strip in zip(rows, strips.flat, strict=True):
        shown = row.thumbnails
        counted = f"{len(shown)} of {row.total}" if row.total else "none"
        strip.suptitle(f"{row.section.title} ({counted})", x=0.01, ha="left", fontsize=10, fontweight="bold")
        if shown:
            _draw_thumbnails(strip, shown, columns)
    return figure


def _draw_thumbnails(strip: SubFigure, thumbnails: list[Thumbnail], columns: int) -> None:
    axes = strip.subplots(1, columns, squeeze=False)[0]
    for axis in axes:
        axis.axis("off")
    for axis, thumbnail in zip(axes, thumbnails, strict=False):
        axis.imshow(thumbnail.picture)
        axis.set_title(f"{thumbnail.score:.3f}  {thumbnail.name}", fontsize=6.5)
