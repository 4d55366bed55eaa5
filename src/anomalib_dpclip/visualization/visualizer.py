"""anomalib's visualizer as this package wants it: one picture a photo, in the photo's own proportions, drawn fast."""

import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from anomalib.data import ImageItem
from anomalib.visualization import Visualizer
from lightning.pytorch import LightningModule, Trainer

from anomalib_dpclip.data.results import PICTURES
from anomalib_dpclip.visualization.picture import draw_picture

logger = logging.getLogger(__name__)

_QUALITY = 90
_MAX_NAME_BYTES = 200
"""Bytes of a file name, of the 255 that file systems take."""


class PictureVisualizer(Visualizer):
    """Writes ``images/<folders of the photo>/<its name>.jpg`` for each photo that is tested or predicted.

    The pictures of a batch are drawn while the next one is predicted. A picture that cannot be drawn or written never ends a
    run: the first one is a warning.

    Attributes:
        pictures: Paths of the pictures that were written last, of one batch, by the path of the photo.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pictures: dict[str, Path] = {}
        self._has_warned = False
        self._root: Path | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._drawn: list[tuple[str, Path, Future[None]]] = []

    def on_test_start(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Forget an earlier run."""
        self.pictures, self._has_warned = {}, False
        # The folder that the photos are below, if it is known: of the data, or of a path that is predicted.
        root = getattr(getattr(trainer, "datamodule", None), "root", None)
        loaders = getattr(trainer, "predict_dataloaders", None) or ()
        for loader in loaders if isinstance(loaders, Sequence) else (loaders,):
            files = getattr(getattr(loader, "dataset", None), "image_filenames", None)
            root = root or (os.path.commonpath([Path(file).resolve().parent for file in files]) if files else None)
        self._root = None if root is None else Path(root)
        # Decoding and encoding release the interpreter's lock.
        self._pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))

    def on_test_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any, **__: Any) -> None:  # noqa: ARG002
        """Have the pictures of a batch written, after those of the batch before."""
        self._finish()
        folder, options = Path(trainer.default_root_dir) / PICTURES, display_options(trainer, pl_module)
        for item in batch if self._pool is not None else ():
            if item.image_path is not None and item.anomaly_map is not None:
                target = picture_path(item.image_path, folder, self._root)
                self._drawn.append((str(item.image_path), target, self._pool.submit(_write, item, target, options)))

    def on_test_end(self, *_: Any, **__: Any) -> None:
        """Wait for the last pictures, also of what was predicted before a run was stopped."""
        if self._pool is not None:
            self._finish()
            self._pool.shutdown()
            self._pool = None

    on_exception = on_test_end
    on_predict_start, on_predict_batch_end, on_predict_end = on_test_start, on_test_batch_end, on_test_end

    def _finish(self) -> None:
        self.pictures = {}
        for photo, target, done in self._drawn:
            error = done.exception()
            if error is None:
                self.pictures[photo] = target
            elif not self._has_warned:
                self._has_warned = True
                logger.warning("no picture of %s: %s; going on without such pictures", photo, error)
        self._drawn = []


def display_options(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    """What a run says of how its predictions are shown: the last arguments of `show`.

    Maps fill [0, 1] where they are normalised by a calibration, or another model's, by anomalib.
    """
    calibration = getattr(getattr(module, "post_processor", None), "calibration", None)
    return {
        "is_calibrated": calibration is None or bool(calibration.is_set),
        "bit_depth": getattr(getattr(trainer, "datamodule", None), "bit_depth", None),
        "min_area": getattr(module, "min_area", 0),
    }


def picture_path(photo: str, folder: Path, root: Path | str | None) -> Path:
    """Path in a folder of pictures of a photo's own, which is no other photo's: laid out as the photos below their root.

    The picture of a photo elsewhere is in a folder of its last folder's name, and has a digest of the whole path in its own.
    """
    path = Path(os.path.abspath(photo))  # noqa: PTH100  (resolving would follow links out of the root)
    roots = () if root is None else (Path(os.path.abspath(root)), Path(root).resolve())  # noqa: PTH100
    parent = next((path.parent.relative_to(each) for each in roots if path.is_relative_to(each)), None)
    name = os.fsencode(path.name)
    if parent is None or len(name) > _MAX_NAME_BYTES:
        name = name[: _MAX_NAME_BYTES - 17] + b"-" + hashlib.sha256(os.fsencode(path)).hexdigest()[:16].encode()
    return folder / (path.parent.name if parent is None else parent) / (os.fsdecode(name) + ".jpg")


def _write(item: ImageItem, target: Path, options: dict[str, Any]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    draw_picture(item, **options).save(target, "JPEG", quality=_QUALITY)
