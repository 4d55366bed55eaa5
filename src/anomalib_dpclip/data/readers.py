"""How a data set's photos and masks are read: all alike, by how many processes, and what looks wrong is said once a run."""

import logging
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.fabric.utilities.data import suggested_max_num_workers
from PIL import Image

from anomalib_dpclip.data.images import SIXTEEN_BIT_MODES, load_image, read_mask, to_rgb

logger = logging.getLogger(__name__)

NARROW_DEPTH = 12
"""A 16-bit photo with nothing above these many bits is 16 times darker than white at best: hardly meant so."""

_SHALLOWEST = 10

MAX_WORKERS = 8
"""More processes than this only wait for each other."""


class Once:
    """True the first time that it is asked, in whichever process and copy of a data set."""

    def __init__(self) -> None:
        self._asked = torch.zeros(1, dtype=torch.bool).share_memory_()

    def __call__(self) -> bool:
        """Whether nobody has asked before."""
        first = not self._asked
        self._asked.fill_(True)
        return first

    def __deepcopy__(self, memo: dict[int, Any]) -> "Once":
        """The same: anomalib copies data sets to split them."""
        return self


class ImageReader:
    """Reads the images of a data set alike, see `read_image`, and says once if they look darker than they can be meant."""

    def __init__(self, bit_depth: int | None = None, side: int | None = None) -> None:
        if bit_depth is not None and not 8 <= bit_depth <= 16:
            raise ValueError(f"bit_depth must lie in 8..16, not {bit_depth}")
        self.bit_depth, self.side = bit_depth, side
        self._once = Once()

    def __call__(self, path: str | Path) -> Image.Image:
        """Read a photo as 8-bit RGB, upright; raises as `read_image`."""
        image = load_image(path, side=self.side)
        if self.bit_depth is None and image.mode in SIXTEEN_BIT_MODES and "bit_depth" not in image.info:
            used = int(np.asarray(image).max()).bit_length()
            if 0 < used <= NARROW_DEPTH and self._once():
                depth = max(used, _SHALLOWEST)
                logger.warning(
                    "%s has 16 bits but no value above %d, and 65535 is white: it is taken as almost black. If the camera has "
                    "%d bits, set --data.bit_depth %d",
                    *(path, 2**depth - 1, depth, depth),
                )
        return to_rgb(image, path, self.bit_depth)


class MaskReader:
    """Reads the masks of images that are labelled anomalous, and names the first one that is empty."""

    def __init__(self) -> None:
        self._once = Once()

    def __call__(self, path: str, size: tuple[int, int], image_path: str) -> npt.NDArray[np.uint8]:
        """A mask ``(H, W)``, as `read_mask` gives and refuses it."""
        mask = read_mask(path, size, image_path)
        if not mask.any() and self._once():
            logger.warning(
                "%s is labelled anomalous, but its mask %s is empty: `dpclip metadata --check` lists all such images of a list",
                *(image_path, path),
            )
        return mask


def default_num_workers(devices: int = 1) -> int:
    """Worker processes of each data loader, at most `MAX_WORKERS`, where so many devices of this machine work together.

    None where processes are not forked (Windows, macOS): there every worker starts Python anew and imports a script that may
    not expect it. Nor in a process that may have no children, as those of a pool.
    """
    if multiprocessing.get_start_method() != "fork" or multiprocessing.current_process().daemon:
        return 0
    return min(MAX_WORKERS, suggested_max_num_workers(devices))
