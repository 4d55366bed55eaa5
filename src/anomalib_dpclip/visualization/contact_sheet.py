"""The contact sheet of a run: one picture of its mistakes, where they are known, its narrow decisions and its clear ones."""

import logging
from bisect import bisect
from collections.abc import Callable, Iterable, Sequence
from functools import partial
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
_TRUTH = "White line: ground truth."
_NO_BOX = "No box: the image is above its threshold, but no pixel is above theirs; images and pixels have a threshold each."


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


class Extremes:
    """Thumbnails of the lowest and of the highest scores of a stream.

    Args:
        limit: Number of thumbnails kept of either.

    Attributes:
        total: Number of images in the stream.
        thumbnails: Thumbnails kept, the lowest score first.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.total = limit, 0
        self.thumbnails: list[Thumbnail] = []

    def add(self, score: float, draw: Callable[[], Thumbnail | None]) -> None:
        """Count an image, and have it drawn if its score is among the extremes so far.

        Args:
            score: Image score.
            draw: Draws the thumbnail; ``None`` if that cannot be done.
        """
        self.total += 1
        place = bisect(self.thumbnails, score, key=lambda thumbnail: thumbnail.score)
        is_full = len(self.thumbnails) == 2 * self.limit
        if (is_full and place == self.limit) or (thumbnail := draw()) is None:
            return
        self.thumbnails.insert(place, thumbnail)
        if is_full:
            del self.thumbnails[self.limit]


class ContactSheet(Callback):
    """Draws ``contact_sheet.png`` at the end of a test: false alarms and misses first, then the narrowest and clearest.

    Of a prediction, where nobody knows the truth, the clearest and the narrowest of either decision. No photo stands twice.
    Only the thumbnails that may be shown are kept, however many photos there are. With several devices the sheet is of the
    first one's photos. What cannot be drawn never ends a run: it is a warning.

    Args:
        columns: Images a row.
        side: Longer side of a thumbnail in pixels.
    """

    def __init__(self, columns: int = 6, side: int = 192) -> None:
        self.columns, self.side = columns, side
        self._start(SECTIONS)

    def _start(self, sections: Sequence[Section]) -> None:
        self._sections = sections
        self._extremes = {(section.truth, section.called): Extremes(self.columns) for section in sections}
        self._has_warned = False

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier run."""
        del trainer, pl_module
        self._start(SECTIONS)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier run."""
        del trainer, pl_module
        self._start(PREDICTED_SECTIONS)

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: ImageBatch, *_: Any) -> None:
        """Add a batch, unless it lacks labels, decisions or maps."""
        del outputs
        if batch.gt_label is not None:
            self._add(trainer, pl_module, batch, batch.gt_label.flatten().tolist())

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: ImageBatch, *_: Any
    ) -> None:
        """Add a batch, unless it lacks decisions or maps."""
        del outputs
        self._add(trainer, pl_module, batch, [None] * len(batch.image_path or ()))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the sheet and write it, all or nothing, beside the other results."""
        del pl_module
        if not trainer.is_global_zero or not any(each.total for each in self._extremes.values()):
            return
        path = Path(trainer.default_root_dir) / CONTACT_SHEET
        try:
            with atomic_write(path) as unfinished:
                self._sheet().save(unfinished, "PNG", compress_level=1)
        except Exception as error:  # noqa: BLE001  (no picture is worth the results of a run)
            logger.warning("no contact sheet %s: %s", path, error)
            return
        logger.info("contact sheet: %s", path)

    on_predict_end = on_test_end

    def _add(self, trainer: Trainer, module: LightningModule, batch: ImageBatch, truths: Iterable[bool | None]) -> None:
        needed = (batch.image_path, batch.anomaly_map, batch.pred_score, batch.pred_label)
        if not trainer.is_global_zero or any(value is None for value in needed):
            return
        bit_depth = getattr(getattr(trainer, "datamodule", None), "bit_depth", None)
        for item, truth in zip(batch, truths, strict=True):
            group = (None if truth is None else bool(truth), bool(item.pred_label))
            self._extremes[group].add(float(item.pred_score), partial(self._drawn, item, module, bit_depth))

    def _drawn(self, item: ImageItem, module: LightningModule, bit_depth: int | None) -> Thumbnail | None:
        try:
            return _thumbnail(item, self.side, module, bit_depth)
        except Exception as error:  # noqa: BLE001  (no picture is worth the results of a run)
            if not self._has_warned:
                logger.warning("not on the contact sheet: %s: %s", item.image_path, error)
            self._has_warned = True
            return None

    def rows(self) -> list[tuple[str, list[Thumbnail]]]:
        """Heading and thumbnails of each row; a section whose images all stand above has none."""
        left = {group: list(extremes.thumbnails) for group, extremes in self._extremes.items()}
        rows = []
        for section in self._sections:
            group = (section.truth, section.called)
            take, total = left[group], self._extremes[group].total
            shown = [take.pop(-1 if section.highest_first else 0) for _ in range(min(self.columns, len(take)))]
            if shown or not total:
                rows.append((f"{section.title} ({f'{len(shown)} of {total}' if total else 'none'})", shown))
        return rows

    def _sheet(self) -> Image.Image:
        rows = self.rows()
        has_bare = any(thumbnail.is_bare for _, thumbnails in rows for thumbnail in thumbnails)
        legend = [_LEGEND, *([_TRUTH] if self._sections is SECTIONS else []), *([_NO_BOX] if has_bare else [])]
        return draw_sheet(" ".join(legend), rows, self.columns, self.side)


def _thumbnail(item: ImageItem, side: int, module: LightningModule, bit_depth: int | None) -> Thumbnail:
    path = Path(item.image_path)
    photo = read_image(path, side=side, bit_depth=bit_depth)
    scale = side / max(photo.size)
    photo = photo.resize((max(1, round(photo.width * scale)), max(1, round(photo.height * scale))), Image.Resampling.BICUBIC)
    size = (photo.height, photo.width)
    truth = None if item.gt_mask is None else shown_map(item.gt_mask, size, "nearest") > 0
    heat = shown_map(item.anomaly_map, size)
    low, high = color_range(heat, is_calibrated(module))
    boxes, _ = shown_regions(item, size, getattr(module, "min_area", 0))
    picture = boxed(heat_map(photo, ((heat - low) / (high - low)).clip(0, 1), truth), boxes)
    is_bare = item.pred_mask is not None and bool(item.pred_label) and not boxes
    return Thumbnail(printable(f"{path.parent.name}/{path.name}"), float(item.pred_score), picture, is_bare)
