"""Surfaces: a labelled data set of procedural textures, rendered on first use, in the layout of MVTec AD."""

import json
import logging
import shutil
import tempfile
from pathlib import Path

import numpy as np
from anomalib.data.datamodules.base.image import AnomalibDataModule
from anomalib.data.datasets.image.mvtecad import MVTecADDataset
from anomalib.data.utils import Split, TestSplitMode, ValSplitMode
from PIL import Image

from anomalib_dpclip.data.surfaces.defects import DEFECTS, MIN_EXTENT, damage_surface
from anomalib_dpclip.data.surfaces.textures import COLORS, MATERIALS, render_surface

logger = logging.getLogger(__name__)

TARGET_MATERIALS = ("weave", "mesh", "wood", "brushed metal")
AUXILIARY_MATERIALS = tuple(material for material in MATERIALS if material not in TARGET_MATERIALS)

TRAIN_IMAGES = 20
NORMAL_TEST_IMAGES = 80
TEST_IMAGES_PER_DEFECT = 16

# Part of what says whether a folder on disk is up to date: raise it whenever the drawing changes.
_VERSION = 1
_MARKER = "surfaces.json"


class SurfacesDataset(MVTecADDataset):
    """One material of `Surfaces`, under its name, read as a category of MVTec AD."""


class Surfaces(AnomalibDataModule):
    """Data module of procedural surfaces with exact masks.

    Ten materials, each in ten colours: six to learn from (`AUXILIARY_MATERIALS`), four to test on (`TARGET_MATERIALS`).
    A category has 20 normal training images and a labelled test split of 80 normal and 80 damaged ones, 16 of each
    kind of defect.

    Args:
        root: Folder that the data set is drawn into on first use.
        category: Material: one of `Surfaces.categories`.
        train_batch_size: Training batch size.
        eval_batch_size: Validation and test batch size.
        num_workers: Number of workers of each data loader.
        test_split_mode: How the test set is made.
        val_split_mode: How the validation set is made.
        val_split_ratio: Share of the images for validation, where the mode asks for one.
        image_size: Side of the images in pixels. A larger image shows more of the same surface, its features as large.
            (anomalib's `get_datamodule` passes the side twice, as height and width.)
        defect_size: Size of the defects in pixels, about the diameter of a hole.
        seed: Seed of the drawing and of random splits.
    """

    categories = tuple(material.replace(" ", "_") for material in MATERIALS)
    auxiliary_categories = tuple(material.replace(" ", "_") for material in AUXILIARY_MATERIALS)
    target_categories = tuple(material.replace(" ", "_") for material in TARGET_MATERIALS)

    def __init__(
        self,
        root: Path | str = "./datasets/Surfaces",
        category: str = "weave",
        train_batch_size: int = 8,
        eval_batch_size: int = 32,
        num_workers: int = 0,
        test_split_mode: TestSplitMode | str = TestSplitMode.FROM_DIR,
        val_split_mode: ValSplitMode | str = ValSplitMode.SAME_AS_TEST,
        val_split_ratio: float = 0.5,
        image_size: int | tuple[int, int] = 140,
        defect_size: float = 48,
        seed: int = 0,
    ) -> None:
        super().__init__(
            *(train_batch_size, eval_batch_size, num_workers),
            test_split_mode=test_split_mode,
            val_split_mode=val_split_mode,
            val_split_ratio=val_split_ratio,
            seed=seed,
        )
        if category not in self.categories:
            raise ValueError(f"unknown category {category!r} of Surfaces: choose one of {', '.join(self.categories)}")
        sides = {image_size} if isinstance(image_size, int) else set(image_size)
        if len(sides) > 1 or min(sides) <= 0:
            raise ValueError(f"image_size is the side of a square in pixels and must be positive, not {image_size}")
        if defect_size < MIN_EXTENT:
            raise ValueError(f"defect_size is in pixels and must be at least {MIN_EXTENT}, not {defect_size}")
        self.root, self.category = Path(root), category
        (self.image_size,), self.defect_size, self.drawing_seed = sides, defect_size, seed

    def prepare_data(self) -> None:
        """Draw the category, unless it is there; a ValueError if it was drawn with other parameters, or by something else."""
        folder, sizes = self.root / self.category, {"image_size": self.image_size, "defect_size": self.defect_size}
        parameters = {"version": _VERSION, **sizes, "seed": self.drawing_seed}
        if not folder.exists():
            logger.info("Drawing %s.", folder)
            # Beside its place, and then renamed: it is either whole or not there.
            self.root.mkdir(parents=True, exist_ok=True)
            unfinished = Path(tempfile.mkdtemp(prefix=f".{self.category}-", dir=self.root))
            try:
                self._draw(unfinished)
                (unfinished / _MARKER).write_text(json.dumps(parameters))
                unfinished.chmod(0o755)  # mkdtemp makes a private folder
                unfinished.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was quicker, and what it drew is the same
                    raise
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        marker = folder / _MARKER
        found = json.loads(marker.read_text()) if marker.is_file() else "unknown parameters"
        if found != parameters:
            raise ValueError(f"{folder} was drawn with {found}, not {parameters}: delete that folder, or give another root")

    def _draw(self, folder: Path) -> None:
        """Draw all images and masks of the category into ``folder``."""
        index_of_material = self.categories.index(self.category)
        # A stream of its own for each category: none depends on whether others were drawn.
        rng = np.random.default_rng([self.drawing_seed, index_of_material])
        colors = tuple(COLORS)
        damaged = [(f"test/{defect}", defect, TEST_IMAGES_PER_DEFECT) for defect in DEFECTS]
        for part, defect, count in [("train/good", "", TRAIN_IMAGES), ("test/good", "", NORMAL_TEST_IMAGES), *damaged]:
            (folder / part).mkdir(parents=True)
            for index in range(count):
                image = render_surface(MATERIALS[index_of_material], colors[index % len(colors)], self.image_size, rng)
                if defect:
                    image, mask = damage_surface(image, defect, self.defect_size, rng)
                    path = folder / "ground_truth" / defect / f"{index:03}_mask.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(mask.astype(np.uint8) * 255).save(path)
                Image.fromarray((image * 255).round().astype(np.uint8)).save(folder / part / f"{index:03}.png")

    def _setup(self, _stage: str | None = None) -> None:
        self.train_data = SurfacesDataset(self.root, self.category, split=Split.TRAIN)
        self.test_data = SurfacesDataset(self.root, self.category, split=Split.TEST)
