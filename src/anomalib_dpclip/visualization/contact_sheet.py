"""The contact sheet of a run: one picture of its mistakes, where they are known, its narrow decisions and its clear ones."""

import heapq
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from anomalib.data import ImageBatch, ImageItem
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image

from anomalib_dpclip.data.images import read_image
from anomalib_dpclip.data.results import CONTACT_SHEET
from anomalib_dpclip.files.atomic_write import atomic_write
from anomalib_dpclip.visualization.captions import printable
from anomalib_dpclip.visualization.contact_sheet_drawing import Thumbnail, draw_sheet
from anomalib_dpclip.visualization.heat_map import boxed, color_range, heat_map, shown_map
from anomalib_dpclip.visualization.visualizer import is_calibrated, shown_regions

logger = logging.getLogger(__name__)

_LEGEND = "Image scores, the threshold is 0.5. Colours: anomaly map, red is most anomalous. Boxes: what is called anomalous."
_TRUTH_LEGEND = f"{_LEGEND} White line: ground truth."


class Section(NamedTuple):
    """A row of the sheet: which images it shows, and in which order.

    Attributes:
        title: Heading.
        truth: Whether its images are anomalous; ``None`` where nobody knows.
        called: Whether the model calls them so.
        highest_first: Whether the highest scores come first, or the lowest.
    """

    title: str
    truth: bool | None
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


PREDICTED_SECTIONS = (
    Section("Clearest finds: called anomalous", truth=None, called=True, highest_first=True),
    Section("Narrowest finds: called anomalous", truth=None, called=True, highest_first=False),
    Section("Narrowest passes: called normal", truth=None, called=False, highest_first=True),
    Section("Clearest passes: called normal", truth=None, called=False, highest_first=False),
)


class ContactSheet(Callback):
    """Draws ``contact_sheet.png`` at the end of a test: false alarms and misses first, then the narrowest and clearest.

    Of a prediction, where nobody knows the truth, the clearest and the narrowest of either decision. Only the thumbnails
    that are to be shown are kept, however many photos there are. With several devices the sheet is of the first one's
    photos. What cannot be drawn never ends a run: it is a warning.

    Args:
        columns: Images a row.
        side: Longer side of a thumbnail in pixels.
    """

    def __init__(self, columns: int = 6, side: int = 192) -> None:
        self.columns, self.side = columns, side
        self._start(SECTIONS)

    def _start(self, sections: Sequence[Section]) -> None:
        self._rows = [_Row(section, self.columns) for section in sections]
        self._has_warned = False

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier run."""
        del trainer, pl_module
        self._start(SECTIONS)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier run."""
        del trainer, pl_module
        self._start(PREDICTED_SECTIONS)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: ImageBatch, *args: Any, **kwargs: Any
    ) -> None:
        """Look at a batch, unless it lacks labels, decisions or maps."""
        del outputs, args, kwargs
        if batch.gt_label is not None:
            self._look_at(trainer, pl_module, batch, batch.gt_label.flatten().tolist())

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: ImageBatch, *args: Any, **kwargs: Any
    ) -> None:
        """Look at a batch, unless it lacks decisions or maps."""
        del outputs, args, kwargs
        self._look_at(trainer, pl_module, batch, [None] * len(batch.image_path or ()))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the sheet and write it, all or nothing, beside the other results."""
        del pl_module
        if not trainer.is_global_zero or not any(row.total for row in self._rows):
            return
        path = Path(trainer.default_root_dir) / CONTACT_SHEET
        legend = _LEGEND if self._rows[0].section.truth is None else _TRUTH_LEGEND
        rows = [(row.heading, row.thumbnails) for row in self._rows]
        try:
            with atomic_write(path) as unfinished:
                draw_sheet(legend, rows, self.columns, self.side).save(unfinished, "PNG", compress_level=1)
        except Exception as error:  # noqa: BLE001  (no picture is worth the results of a run)
            logger.warning("no contact sheet %s: %s", path, error)
            return
        logger.info("contact sheet: %s", path)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the sheet and write it, all or nothing, beside the other results."""
        self.on_test_end(trainer, pl_module)

    def _look_at(self, trainer: Trainer, module: LightningModule, batch: ImageBatch, truths: Sequence[bool | None]) -> None:
        if not trainer.is_global_zero or any(
            value is None for value in (batch.image_path, batch.anomaly_map, batch.pred_score, batch.pred_label)
        ):
            return
        bit_depth = getattr(getattr(trainer, "datamodule", None), "bit_depth", None)
        for item, truth in zip(batch, truths, strict=True):
            score, called = float(item.pred_score), bool(item.pred_label)
            rows = [row for row in self._rows if (row.section.truth, row.section.called) == (truth, called)]
            wanted = [row for row in rows if row.count(score)]
            if not wanted:
                continue
            try:
                thumbnail = self._thumbnail(item, score, module, bit_depth)
            except Exception as error:  # noqa: BLE001  (no picture is worth the results of a run)
                if not self._has_warned:
                    logger.warning("not on the contact sheet: %s: %s", item.image_path, error)
                self._has_warned = True
                continue
            for row in wanted:
                row.add(thumbnail)

    def _thumbnail(self, item: ImageItem, score: float, module: LightningModule, bit_depth: int | None) -> Thumbnail:
        path = Path(item.image_path)
        photo = read_image(path, side=self.side, bit_depth=bit_depth)
        scale = self.side / max(photo.size)
        photo = photo.resize(
            (max(1, round(photo.width * scale)), max(1, round(photo.height * scale))), Image.Resampling.BICUBIC
        )
        size = (photo.height, photo.width)
        truth = None if item.gt_mask is None else shown_map(item.gt_mask, size, "nearest") > 0
        heat = shown_map(item.anomaly_map, size)
        low, high = color_range(heat, is_calibrated(module))
        boxes, _ = shown_regions(item, size, getattr(module, "min_area", 0))
        picture = boxed(heat_map(photo, ((heat - low) / (high - low)).clip(0, 1), truth), boxes)
        return Thumbnail(printable(f"{path.parent.name}/{path.name}"), score, picture)


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
    def heading(self) -> str:
        """What the row shows, and how much of it."""
        shown = f"{len(self._heap)} of {self.total}" if self.total else "none"
        return f"{self.section.title} ({shown})"

    @property
    def thumbnails(self) -> list[Thumbnail]:
        """The foremost first."""
        return [thumbnail for _, _, thumbnail in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]

    def _rank(self, score: float) -> float:
        return score if self.section.highest_first else -score
