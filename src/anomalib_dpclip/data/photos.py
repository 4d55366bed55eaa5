"""Photos: folders of any number of unlabelled images, to predict."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch
from anomalib.data import AnomalibDataModule
from anomalib.data.transforms.utils import extract_transforms_by_type
from lightning.pytorch import Trainer
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import Resize, Transform
from torchvision.transforms.v2.functional import to_dtype, to_image

from anomalib_dpclip.data.images import FORMATS, ImageReadError, read_image
from anomalib_dpclip.data.items import NamedImageBatch, NamedImageItem
from anomalib_dpclip.data.listing.folder_samples import MASK_FOLDERS
from anomalib_dpclip.data.results import (
    DONE,
    RESULTS,
    Result,
    ResultsWriter,
    model_digest,
    read_results,
    write_results,
)
from anomalib_dpclip.method.class_names import describe

logger = logging.getLogger(__name__)

MANY = 200
"""Images whose predictions fit any memory: at 518 x 518 pixels they are 5.4 MB an image."""


class PhotosDataset(Dataset[NamedImageItem | None]):
    """Images of files.

    Args:
        paths: The files.
        class_names: What each image shows, or ``None`` to leave it to the model.
        resize: Brings images to one size.
    """

    def __init__(self, paths: list[str], class_names: list[str] | None = None, resize: Transform | None = None) -> None:
        self.paths, self.class_names, self.resize = paths, class_names, resize

    def __len__(self) -> int:
        """Number of files."""
        return len(self.paths)

    def __getitem__(self, index: int) -> NamedImageItem | None:
        """Read an image (3, H, W) in [0, 1]; ``None`` if it cannot be read."""
        try:
            image = to_dtype(to_image(read_image(self.paths[index])), torch.float32, scale=True)
        except ImageReadError:
            return None  # one bad file must not end a run of thousands; the results say which and why
        return NamedImageItem(
            image=self._resized(image),
            image_path=self.paths[index],
            class_name=self.class_names[index] if self.class_names else None,
        )

    def collate_fn(self, items: list[NamedImageItem | None]) -> NamedImageBatch:
        """Make a batch of the images that could be read, if need be of none."""
        readable = [item for item in items if item is not None]
        if not readable:
            return NamedImageBatch(image=self._resized(torch.zeros(1, 3, 1, 1))[:0], image_path=[])
        return NamedImageBatch.collate(readable)  # type: ignore[arg-type, return-value]  # its types are too narrow

    def _resized(self, image: torch.Tensor) -> torch.Tensor:
        return self.resize(image) if self.resize else image


class Photos(AnomalibDataModule):
    """Data module of photos to predict, for any model: ``anomalib predict --data Photos --data.root DIR``.

    Takes every image file in a folder and its subfolders, in the order of their names. Not taken: folders of masks
    (``masks``, ``mask``, ``ground_truth``), hidden files, links to folders, and what the run itself writes. Images are
    resized one by one before they are put together as a batch. An image that cannot be read is reported and left out.

    After each batch the results are added to ``results.csv``, beside the heat maps: path, score, label, and for an
    image without results the reason. The same command a second time goes on where the first one stopped: images that
    have a score are left out. With ``--return_predictions false`` memory does not grow with the number of images.

    Args:
        root: Folder of the photos.
        batch_size: Images a batch (and device).
        num_workers: Processes that read images (for each device); by default one a processor, at most 8.
        class_from_folder: Photos of several classes in one run: an image shows what the folder in ``root`` that it lies
            in is called, such as ``metal_nut``, unless the model is given a class name.
        fresh: Start over instead of going on with earlier results.

    Raises:
        ValueError: If the batch size is not positive or the number of workers negative.
    """

    def __init__(
        self,
        root: Path | str,
        batch_size: int = 8,
        num_workers: int | None = None,
        class_from_folder: bool = False,
        fresh: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if num_workers is not None and num_workers < 0:
            raise ValueError(f"num_workers must be at least 0, not {num_workers}")
        workers = min(8, os.cpu_count() or 1) if num_workers is None else num_workers
        super().__init__(train_batch_size=batch_size, eval_batch_size=batch_size, num_workers=workers)
        self.root = Path(root)
        self.class_from_folder = class_from_folder
        self.fresh = fresh

    @property
    def name(self) -> str:  # type: ignore[override]  # Lightning declares an attribute, anomalib makes it a property
        """Name of the folder: heat maps are then laid out as the photos below it are."""
        return self.root.resolve().name

    def setup(self, stage: str | None = None) -> None:
        """Nothing to split.

        Raises:
            ValueError: If labels would be needed.
        """
        if stage in {"fit", "test"}:
            self._refuse()

    def _setup(self, _stage: str | None = None) -> None:
        """Nothing; the base class asks for it."""

    def train_dataloader(self) -> NoReturn:
        """Refuse: photos have no labels."""
        self._refuse()

    def test_dataloader(self) -> NoReturn:
        """Refuse: photos have no labels."""
        self._refuse()

    def val_dataloader(self) -> list:
        """None: anomalib then predicts with the calibration that the weights carry."""
        return []

    def predict_dataloader(self) -> DataLoader:
        """Photos that have no results yet.

        Raises:
            FileNotFoundError: If the folder is not there or has no images.
            ValueError: If there are results of another model or other settings, or fewer photos than devices.
        """
        outputs = Path(self.trainer.default_root_dir) if self.trainer else None
        paths = sorted(_image_files(self.root.resolve(), outputs))
        if not paths:
            raise FileNotFoundError(f"no images in {self.root}: it holds no file in one of {', '.join(FORMATS)}")
        left = paths if outputs is None else self._resume(paths, outputs)
        class_names = [self._class_of(path) for path in left] if self.class_from_folder else None
        dataset = PhotosDataset(left, class_names, self._resize())
        return DataLoader(dataset, batch_size=self.eval_batch_size, num_workers=self.num_workers, collate_fn=dataset.collate_fn)

    def _resize(self) -> Transform | None:
        """The model's resize: done by the workers, before images of different sizes are put together."""
        pre_processor = getattr(self.trainer.lightning_module, "pre_processor", None) if self.trainer else None
        return next(iter(extract_transforms_by_type(getattr(pre_processor, "transform", None), Resize)), None)

    def _resume(self, paths: list[str], outputs: Path) -> list[str]:
        """Take over earlier results, attach a writer for the new ones, and give what is left to do."""
        trainer: Any = self.trainer
        model = model_digest(trainer.lightning_module, {"class_from_folder": self.class_from_folder})
        done = self._earlier_results(outputs, model)
        left = [path for path in paths if path not in done]
        self._check_devices_and_memory(trainer, len(left))
        trainer.strategy.barrier()  # all processes have read what the first one now puts together
        if trainer.is_global_zero:
            write_results(outputs, done.values())
            logger.info("%d of %d photos to predict, the others have results in %s", len(left), len(paths), outputs)
        # Last, so that a row says that the heat map is there too.
        others = [each for each in trainer.callbacks if not isinstance(each, ResultsWriter)]
        trainer.callbacks = [*others, ResultsWriter(outputs, left, model)]
        return left

    def _earlier_results(self, outputs: Path, model: str) -> dict[str, Result]:
        """Results of an earlier run, by path, if they are this model's."""
        if self.fresh:
            return {}
        done = {row.path: row for row in read_results(outputs).values() if row.status == DONE}
        if any(row.model != model for row in done.values()):
            raise ValueError(
                f"{outputs / RESULTS} holds results of another model, class name, setting or version: start over "
                f"with --data.fresh true, or keep them and set --default_root_dir"
            )
        return done

    @staticmethod
    def _check_devices_and_memory(trainer: Trainer, left: int) -> None:
        if 0 < left < trainer.world_size:
            raise ValueError(f"{left} left for {trainer.world_size} devices: set --trainer.devices {left}")
        if trainer.predict_loop.return_predictions and left > MANY:
            logger.warning("all predictions are kept in memory: say --return_predictions false, they are in %s", RESULTS)

    def _class_of(self, path: str) -> str:
        folder, *file = Path(path).relative_to(self.root.resolve()).parts
        return describe(None, folder if file else None)

    def _refuse(self) -> NoReturn:
        raise ValueError("Photos have no labels: use `anomalib predict`, or another data module to train or test")


def _image_files(root: Path, outputs: Path | None) -> Iterator[str]:
    """Paths of the image files below a folder.

    Raises:
        FileNotFoundError: If there is no such folder.
        PermissionError: If a folder in it may not be read.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}: root must be the folder that the photos are in")
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}
    for folder, subfolders, files in os.walk(root, onerror=_raise):
        subfolders[:] = [name for name in subfolders if _is_wanted(Path(folder, name), outputs)]
        yield from (
            str(Path(folder, name)) for name in files if not name.startswith(".") and Path(name).suffix.lower() in suffixes
        )


def _is_wanted(folder: Path, outputs: Path | None) -> bool:
    own = outputs is not None and folder == outputs.resolve()
    return not own and not folder.name.startswith(".") and folder.name.lower() not in MASK_FOLDERS


def _raise(error: OSError) -> NoReturn:
    raise error
