"""The contact sheet of a run: one picture of its mistakes, where they are known, its narrow decisions and its clear ones."""

import logging
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from anomalib.data import ImageItem
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image, ImageOps

from anomalib_dpclip.data.results import CONTACT_SHEET
from anomalib_dpclip.files.atomic_write import atomic_write
from anomalib_dpclip.post_processing.score_text import score_text
from anomalib_dpclip.visualization.heat_map import boxed, heat_map
from anomalib_dpclip.visualization.layout import GAP, framed, side_by_side, stacked, text_block
from anomalib_dpclip.visualization.picture import show
from anomalib_dpclip.visualization.visualizer import display_options

logger = logging.getLogger(__name__)

_HEADING, _TEXT = 17, 12
_NAME_LINES = 3

_LEGEND = "Image scores, the threshold is 0.5. Colours: anomaly map, red is most anomalous. Boxes: what is called anomalous."
_TRUTH = "White line: ground truth."
_NO_BOX = "No box: the image is above its threshold, but no pixel is above theirs; images and pixels have a threshold each."


class Section(NamedTuple):
    """A row of the sheet: the images of a truth (``None`` where nobody knows) and a decision, from one end of their scores."""

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


class Thumbnail(NamedTuple):
    """What the sheet keeps of an image; ``is_bare`` if it is called anomalous, and nothing in it."""

    name: str
    score: float
    picture: Image.Image
    is_bare: bool


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
        """Forget an earlier run."""
        self._sections, self._has_warned = sections, False
        # By truth and decision: thumbnails of the lowest and of the highest scores, the lowest first, and how many images.
        self._kept: dict[tuple[bool | None, bool], list[Thumbnail]] = defaultdict(list)
        self._totals: Counter[tuple[bool | None, bool]] = Counter()

    def setup(self, _trainer: Trainer, _module: LightningModule, stage: str) -> None:
        """Begin a sheet, of a prediction without truth."""
        self._start(PREDICTED_SECTIONS if stage == "predict" else SECTIONS)

    def on_test_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any, **__: Any) -> None:  # noqa: ARG002
        """Add a batch, unless it lacks decisions, maps or, in a test, labels."""
        is_test = self._sections is SECTIONS
        needed = [batch.image_path, batch.anomaly_map, batch.pred_score, batch.pred_label]
        needed += [batch.gt_label] if is_test else []
        if not trainer.is_global_zero or any(value is None for value in needed):
            return
        options = display_options(trainer, pl_module)
        for item in batch:
            group = (bool(item.gt_label) if is_test else None, bool(item.pred_label))
            self._totals[group] += 1
            self._keep_extreme(self._kept[group], item, options)

    on_predict_batch_end = on_test_batch_end

    def _keep_extreme(self, kept: list[Thumbnail], item: ImageItem, options: dict[str, Any]) -> None:
        """Draw an image whose score is among the lowest or the highest so far."""
        place = bisect(kept, float(item.pred_score), key=lambda thumbnail: thumbnail.score)
        is_full = len(kept) == 2 * self.columns
        if is_full and place == self.columns:
            return
        try:
            shown = show(item, self.side, **options)
            picture = boxed(heat_map(shown.photo, shown.shades, shown.truth), shown.boxes)
            is_bare = shown.region is not None and bool(item.pred_label) and not shown.boxes
            kept.insert(place, Thumbnail(shown.name, float(item.pred_score), picture, is_bare))
        except Exception as error:  # noqa: BLE001  (no picture is worth the results of a run)
            if not self._has_warned:
                logger.warning("not on the contact sheet: %s: %s", item.image_path, error)
            self._has_warned = True
            return
        if is_full:
            del kept[self.columns]

    def on_test_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Draw the sheet and write it, all or nothing, beside the other results."""
        if not trainer.is_global_zero or not self._totals:
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

    def rows(self) -> list[tuple[str, list[Thumbnail]]]:
        """Heading and thumbnails of each row; a section whose images all stand above has none."""
        left = {group: list(kept) for group, kept in self._kept.items()}
        rows = []
        for section in self._sections:
            group = (section.truth, section.called)
            take, total = left.get(group, []), self._totals[group]
            shown = [take.pop(-1 if section.highest_first else 0) for _ in range(min(self.columns, len(take)))]
            if shown or not total:
                rows.append((f"{section.title} ({f'{len(shown)} of {total}' if total else 'none'})", shown))
        return rows

    def _sheet(self) -> Image.Image:
        """Rows of thumbnails below their headings, and a legend above all."""
        rows = self.rows()
        has_bare = any(thumbnail.is_bare for _, thumbnails in rows for thumbnail in thumbnails)
        legend = [_LEGEND, *([_TRUTH] if self._sections is SECTIONS else []), *([_NO_BOX] if has_bare else [])]
        width = self.columns * (self.side + GAP) - GAP
        parts = [text_block(" ".join(legend), _TEXT, width)]
        for heading, thumbnails in rows:
            parts.append(text_block(heading, _HEADING, width))
            if thumbnails:
                row, place = [], (self.side, max(each.picture.height for each in thumbnails))
                for each in thumbnails:
                    picture = ImageOps.pad(each.picture, place, color="white", centering=(0, 1))
                    score = text_block(f"{score_text(each.score)}{', no box' if each.is_bare else ''}", _TEXT, self.side)
                    name = text_block(each.name, _TEXT, self.side, max_lines=_NAME_LINES)
                    row.append(stacked([picture, score, name], gap=2))
                parts.append(side_by_side(row))
        return framed(stacked(parts))
