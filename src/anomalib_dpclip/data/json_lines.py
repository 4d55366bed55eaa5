"""JSON lines: any labelled set of images, listed in a metadata file, as a data module of anomalib."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from anomalib import TaskType
from anomalib.data.datamodules.base.image import AnomalibDataModule
from anomalib.data.datasets.base.image import AnomalibDataset
from anomalib.data.utils import TestSplitMode, ValSplitMode
from torch.utils.data import DataLoader
from torchvision.transforms.v2.functional import to_dtype, to_image
from torchvision.tv_tensors import Mask

from anomalib_dpclip.data.items import NamedImageBatch, NamedImageItem
from anomalib_dpclip.data.listing.metadata import RootFolder, read_lines, read_metadata
from anomalib_dpclip.data.readers import ImageReader, MaskReader, default_num_workers
from anomalib_dpclip.data_sets.class_names import describe

logger = logging.getLogger(__name__)


class JSONLinesDataset(AnomalibDataset):
    """Images, labels, masks and class names of rows as `read_metadata` gives them, with the task as attribute."""

    collate_fn = staticmethod(NamedImageBatch.collate)

    def __init__(self, samples: pd.DataFrame, name: str, bit_depth: int | None = None) -> None:
        super().__init__()
        self._name = name
        self._read_image, self._read_mask = ImageReader(bit_depth), MaskReader()
        self._fully_masked = bool(samples.mask_path[samples.label_index == 1].notna().all())
        self.samples = samples

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self._name

    def __getitem__(self, index: int) -> NamedImageItem:
        """An image (3, H, W) in [0, 1] and, for segmentation, its mask: zeros if it has none; raises as `read_mask`."""
        sample = self.samples.iloc[index]
        picture = self._read_image(sample.image_path)
        image = to_dtype(to_image(picture), torch.float32, scale=True)
        mask, has_mask = None, isinstance(sample.mask_path, str)
        if self.task == TaskType.SEGMENTATION:
            size = picture.size
            values = self._read_mask(sample.mask_path, size, sample.image_path) if has_mask else np.zeros(size[::-1], np.uint8)
            mask = Mask(torch.from_numpy(values))
        if self.augmentations:
            image, mask = (self.augmentations(image), None) if mask is None else self.augmentations(image, mask)
        is_known = has_mask or not sample.label_index
        return NamedImageItem(
            image=image,
            gt_mask=mask,
            gt_label=torch.tensor(int(sample.label_index)),
            image_path=sample.image_path,
            mask_path=sample.mask_path if mask is not None else None,
            class_name=describe(self.name, sample.class_name),
            has_mask=None if mask is None or self._fully_masked else torch.tensor(is_known),
        )


class JSONLines(AnomalibDataModule):
    """Data module of a metadata file: own photographs, and data sets that anomalib does not know.

    Lines with ``"split": "train"`` are the training images, all others are tested. Images of different sizes are
    brought to the model's input size one by one, before they are put together as a batch. Without masks there are image
    metrics only, and where some anomalous images have none pixel metrics leave those images out; with anomalous images only,
    there are pixel metrics only.

    Args:
        metadata: JSON-lines file; `anomalib_dpclip.data.listing.metadata` describes the format, `dpclip metadata` writes it.
        root: Folder that its paths are relative to.
        category: Only images whose ``class_name`` this is; all classes if not given, each with its own prompts.
        name: Name of the data set, which class descriptions and domain go by; by default the folder of the metadata
            file, as in ``metadata/VisA/full-shot.jsonl``.
        task: ``classification`` to leave masks aside, ``segmentation`` to insist on them; by default whichever fits the file.
        train_batch_size: Training batch size.
        eval_batch_size: Validation and test batch size.
        num_workers: Processes that read images (for each device); by default one less than there are processors, at most 8.
        test_split_mode: ``synthetic`` tests on the normal images and on synthetic defects put into some of them;
            otherwise the test set is what the file says.
        val_split_mode: How the validation set is made.
        val_split_ratio: Share of the images for validation, where the mode asks for one.
        seed: Seed of random splits.
        bit_depth: Bits that 16-bit images use, such as 12, where their files do not say: white is ``2 ** bit_depth - 1``.
    """

    def __init__(
        self,
        metadata: str | Path,
        root: str | Path,
        category: str | None = None,
        name: str | None = None,
        task: TaskType | str | None = None,
        train_batch_size: int = 32,
        eval_batch_size: int = 32,
        num_workers: int | None = None,
        test_split_mode: TestSplitMode | str = TestSplitMode.FROM_DIR,
        val_split_mode: ValSplitMode | str = ValSplitMode.SAME_AS_TEST,
        val_split_ratio: float = 0.5,
        seed: int | None = None,
        bit_depth: int | None = None,
    ) -> None:
        workers = default_num_workers() if num_workers is None else num_workers
        super().__init__(
            *(train_batch_size, eval_batch_size, workers),
            test_split_mode=test_split_mode,
            val_split_mode=val_split_mode,
            val_split_ratio=val_split_ratio,
            seed=seed,
        )
        if self.val_split_mode == ValSplitMode.FROM_DIR:
            raise ValueError("val_split_mode from_dir: a metadata file has no validation split; use same_as_test")
        self.metadata = Path(metadata)
        self.root = Path(root)
        self.category = category or ""
        self._name = name or self.metadata.resolve().parent.name
        self._task = TaskType(task) if task else None
        self.bit_depth = bit_depth

    @property
    def name(self) -> str:  # type: ignore[override]  # Lightning declares an attribute, anomalib makes it a property
        """Name of the data set."""
        return self._name

    def prepare_data(self) -> None:
        """Make sure that file and root are there, before a model downloads what it learns from."""
        next(read_lines(self.metadata), None)
        RootFolder(self.root)

    def _setup(self, _stage: str | None = None) -> None:
        samples = read_metadata(self.metadata, self.root)
        if self.category:
            classes = sorted(samples.class_name.unique())
            samples = samples[samples.class_name == self.category]
            if samples.empty:
                raise ValueError(f"no category {self.category!r} in {self.metadata}: it has {', '.join(map(repr, classes))}")
        samples.attrs["task"] = self._task_of(samples).value
        images = JSONLinesDataset(samples, self.name, self.bit_depth)
        is_train = (images.samples.split == "train").to_numpy()
        self.train_data = images.subsample(np.flatnonzero(is_train).tolist())
        self.test_data = images.subsample(np.flatnonzero(~is_train).tolist())
        if self.val_split_mode in {ValSplitMode.FROM_TRAIN, ValSplitMode.SYNTHETIC}:
            self._require_training_images(f"val_split_mode {self.val_split_mode.value}")

    def _task_of(self, samples: pd.DataFrame) -> TaskType:
        """Task that the masks allow, where the user leaves it open; says how many masks are missing where others are there."""
        anomalous = samples[samples.label_index == 1]
        unmasked = anomalous[anomalous.mask_path.isna()]
        has_none = len(unmasked) == len(anomalous)
        if self._task == TaskType.CLASSIFICATION or (self._task is None and has_none):
            return TaskType.CLASSIFICATION
        if has_none and len(anomalous):
            raise ValueError(
                f"none of {len(anomalous)} anomalous images in {self.metadata} has a mask, the first is "
                f"{unmasked.image_path.iloc[0]}: add masks, or set task to classification for image metrics only"
            )
        if len(unmasked):
            logger.warning(
                "%d of %d anomalous images in %s have no mask, the first is %s: pixel metrics and thresholds leave them out",
                *(len(unmasked), len(anomalous), self.metadata, unmasked.image_path.iloc[0]),
            )
        return TaskType.SEGMENTATION

    def _create_test_split(self) -> None:
        # anomalib would fill a test set of anomalous images alone with training images, but the file says what is tested.
        if self.test_split_mode == TestSplitMode.SYNTHETIC:
            super()._create_test_split()

    def train_dataloader(self) -> DataLoader:
        """Training images, in random order; a ValueError if the file lists none."""
        self._require_training_images("training on it")
        return super().train_dataloader()

    def _require_training_images(self, purpose: str) -> None:
        if len(self.train_data) == 0:
            raise ValueError(f'{self.metadata} has no line with "split": "train", but {purpose} needs training images')
