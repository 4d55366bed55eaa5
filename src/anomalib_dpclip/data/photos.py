"""Photos: folders of any number of unlabelled images, to predict."""

import logging
from pathlib import Path
from typing import Any

import torch
from anomalib.data import AnomalibDataModule
from anomalib.data.transforms.utils import extract_transforms_by_type
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import Resize
from torchvision.transforms.v2.functional import to_dtype, to_image

from anomalib_dpclip.data.images import FORMATS, ImageReadError
from anomalib_dpclip.data.items import NamedImageBatch, NamedImageItem
from anomalib_dpclip.data.photo_files import photo_files
from anomalib_dpclip.data.readers import ImageReader, default_num_workers
from anomalib_dpclip.data.results.rows import RESULTS, earlier_rows, read_rows, take_over, write_results
from anomalib_dpclip.data.results.writer import Listener, ResultsWriter, prediction_digest
from anomalib_dpclip.data_sets.class_names import readable_name

logger = logging.getLogger(__name__)

MANY = 200
"""Images whose predictions fit any memory: at 518 x 518 pixels they are 5.4 MB an image."""

_REDUCED = 2
"""Least size at which a JPEG is decoded in part, in sides of the model: at once scores change by up to 3 % of their range."""


class PhotosDataset(Dataset[NamedImageItem | None]):
    """Images of files, brought to one size, with what each shows, or ``None`` to leave it to the model.

    `whole` is all that these are a part of: with the photos that have results already, too.
    """

    def __init__(
        self,
        paths: list[str],
        class_names: list[str] | None = None,
        resize: Any = None,
        read_image: ImageReader | None = None,
        whole: "PhotosDataset | None" = None,
    ) -> None:
        self.paths, self.class_names, self.resize = paths, class_names, resize
        self.read_image, self.whole = read_image or ImageReader(), self if whole is None else whole

    def __len__(self) -> int:
        """Number of files."""
        return len(self.paths)

    def __getitem__(self, index: int) -> NamedImageItem | None:
        """Read an image (3, H, W) in [0, 1]; ``None`` if it cannot be read."""
        try:
            photo = to_image(self.read_image(self.paths[index]))
        except ImageReadError:
            return None  # one bad file must not end a run of thousands; the results say which and why
        if getattr(self.resize, "is_eight_bit", False) and list(photo.shape[-2:]) != list(self.resize.size):
            image = self._resized(photo).float() / 255  # a quarter of the memory; of 16 megapixels half a second less
        else:
            image = self._resized(to_dtype(photo, torch.float32, scale=True))
        name = self.class_names[index] if self.class_names else None
        return NamedImageItem(image=image, image_path=self.paths[index], class_name=name)

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

    After each batch the results are added to ``results.csv``, beside the heat maps: path, score, label, picture, and for an
    image without results the reason. The same command a second time goes on where the first one stopped: images that have a
    score are left out. Results of another model, of other settings or good photos, or of another lot, whose images are scored
    by each other, are set aside in a file named by their digest. With ``--return_predictions false`` no prediction stays in
    memory, only the list of the images.

    Args:
        root: Folder of the photos.
        batch_size: Images a batch (and device).
        num_workers: Processes that read images (for each device); by default one less than there are processors, at most 8.
        class_from_folder: Photos of several classes in one run: an image shows what the folder in ``root`` that it lies
            in is called, such as ``metal_nut``, unless the model is given a class name.
        fresh: Start over instead of going on with earlier results.
        bit_depth: Bits that 16-bit photos use, such as 12, where their files do not say: white is ``2 ** bit_depth - 1``.
        reduced_jpeg: Decode large JPEGs at half, a quarter or an eighth of their size, never below twice the model's: several
            times as fast, and scores change by less than a hundredth of their range.
        only: Files and folders in ``root`` that are taken; by default all of it. A file named here need not look like a photo.

    Attributes:
        listener: Is given rows of results as they come, those of an earlier run first; nobody by default.
    """

    def __init__(
        self,
        root: Path | str,
        batch_size: int = 8,
        num_workers: int | None = None,
        class_from_folder: bool = False,
        fresh: bool = False,
        bit_depth: int | None = None,
        reduced_jpeg: bool = False,
        only: list[Path] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if num_workers is not None and num_workers < 0:
            raise ValueError(f"num_workers must be at least 0, not {num_workers}")
        workers = default_num_workers() if num_workers is None else num_workers
        super().__init__(train_batch_size=batch_size, eval_batch_size=batch_size, num_workers=workers)
        self.root, self.only, self.fresh = Path(root), only, fresh
        self.class_from_folder, self.bit_depth, self.reduced_jpeg = class_from_folder, bit_depth, reduced_jpeg
        self.listener: Listener | None = None
        self._read_image = ImageReader(bit_depth)

    @property
    def name(self) -> str:  # type: ignore[override]  # Lightning declares an attribute, anomalib makes it a property
        """Name of the folder: heat maps are then laid out as the photos below it are."""
        return self.root.resolve().name

    def setup(self, stage: str | None = None) -> None:
        """Nothing to split; a ValueError if labels would be needed."""
        if stage in {"fit", "test"}:
            raise ValueError("Photos have no labels: use `anomalib predict`, or another data module to train or test")

    def _setup(self, _stage: str | None = None) -> None:
        """Nothing; the base class asks for it."""

    def val_dataloader(self) -> list:
        """None: anomalib then predicts with the calibration that the weights carry."""
        return []

    def predict_dataloader(self) -> DataLoader:
        """Photos that have no results yet, of which there must be one for each device."""
        outputs = Path(self.trainer.default_root_dir) if self.trainer else None
        places = [self.root] if self.only is None else self.only
        # A link to a file is a photo of its own, whatever it points to.
        resolved = [place.resolve() if place.is_dir() else place.parent.resolve() / place.name for place in places]
        paths = sorted({path for place in resolved for path in photo_files(place, outputs)})
        if not paths:
            raise FileNotFoundError(f"no images in {self.root}: it holds no file in one of {', '.join(FORMATS)}")
        # The workers resize, before images of different sizes are put together.
        pre_processor = getattr(self.trainer.lightning_module, "pre_processor", None) if self.trainer else None
        resize = next(iter(extract_transforms_by_type(getattr(pre_processor, "transform", None), Resize)), None)
        if self.reduced_jpeg and resize is not None:
            self._read_image.side = _REDUCED * max(resize.size)
        left = paths if outputs is None else self._without_results(paths, outputs)
        everything = PhotosDataset(paths, self._class_names(paths), resize, self._read_image)
        dataset = PhotosDataset(left, self._class_names(left), resize, self._read_image, everything)
        return DataLoader(dataset, batch_size=self.eval_batch_size, num_workers=self.num_workers, collate_fn=dataset.collate_fn)

    def _class_names(self, paths: list[str]) -> list[str] | None:
        """What the folder in the root is called that each photo lies in, if classes are told by it."""
        if not self.class_from_folder:
            return None
        parts = [Path(path).relative_to(self.root.resolve()).parts for path in paths]
        return [readable_name(folder if file else None) for folder, *file in parts]

    def _without_results(self, paths: list[str], outputs: Path) -> list[str]:
        """Take over earlier results, attach a writer for the new ones, and give the photos that are left to do."""
        trainer: Any = self.trainer
        settings = {name: getattr(self, name) for name in ("class_from_folder", "bit_depth", "reduced_jpeg")}
        model = prediction_digest(trainer.lightning_module, paths, settings | {"precision": trainer.precision})
        done = set() if self.fresh else {row.path for row in earlier_rows(outputs, model)}
        left = [path for path in paths if path not in done]
        if 0 < len(left) < trainer.world_size:
            raise ValueError(f"{len(left)} left for {trainer.world_size} devices: set --trainer.devices {len(left)}")
        if trainer.predict_loop.return_predictions and len(left) > MANY:
            logger.warning("all predictions are kept in memory: say --return_predictions false, they are in %s", RESULTS)
        trainer.strategy.barrier()  # all processes have read what the first one now puts together
        if trainer.is_global_zero:
            write_results(outputs, []) if self.fresh else take_over(outputs, model)
            to_do = f"{len(left)} to predict" if left else "nothing to do"
            logger.info("%s; %d photos have results in %s", to_do, len(paths) - len(left), outputs)
        # Last, so that a row says that the heat map is there too.
        callbacks = [each for each in trainer.callbacks if not isinstance(each, ResultsWriter)]
        trainer.callbacks = [*callbacks, ResultsWriter(outputs, left, model, self._read_image, self.listener)]
        if self.listener is not None:
            asked = set(paths)
            self.listener([row for row in read_rows(outputs / RESULTS) if row.path in asked])
        return left
