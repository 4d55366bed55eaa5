"""Which files in a folder are photos to predict: not masks, nothing hidden, and nothing that a run has written."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from PIL import Image

from anomalib_dpclip.data.images import FORMATS
from anomalib_dpclip.data.listing.folder_samples import MASK_FOLDERS
from anomalib_dpclip.data.results.rows import CONTACT_SHEET, PICTURES, holds_results

logger = logging.getLogger(__name__)

UNSUPPORTED = {".heic", ".heif", ".avif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"}
"""Of photos that cannot be read: phones' and cameras' own formats."""


def photo_files(root: Path, outputs: Path | None = None) -> Iterator[str]:
    """Paths of the photos below a folder, in no order; one file is taken whatever it is. A link to a photo is one of its own.

    Nothing is taken of the folder that the run writes its `outputs` to, unless it is the root itself. An OSError if there is
    no such folder, or one in it may not be read.
    """
    if root.is_file():
        yield str(root)
        return
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}: root must be the folder that the photos are in")
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}
    left_out = []
    for path in _visible_files(root, outputs):
        if path.suffix.lower() in suffixes:
            yield str(path)
        elif path.suffix.lower() in UNSUPPORTED:
            left_out.append(path)
    if left_out:
        kinds = ", ".join(sorted({path.suffix.lower() for path in left_out}))
        message = "%d photos left out, such as %s: %s cannot be read, save them as JPEG"
        logger.warning(message, len(left_out), left_out[0], kinds)


def _visible_files(root: Path, outputs: Path | None) -> Iterator[Path]:
    """Files below a folder but for masks, what is hidden, and what a run has written."""

    def fail(error: OSError) -> NoReturn:
        raise error

    hidden = None if outputs is None else outputs.resolve()
    for folder, subfolders, files in os.walk(root, onerror=fail):
        written = {PICTURES, CONTACT_SHEET} if CONTACT_SHEET in files or holds_results(Path(folder)) else set()
        visible = [name for name in subfolders if not name.startswith(".") and name.lower() not in MASK_FOLDERS]
        subfolders[:] = [name for name in visible if name not in written and Path(folder, name) != hidden]
        yield from (Path(folder, name) for name in files if name not in written and not name.startswith("."))
