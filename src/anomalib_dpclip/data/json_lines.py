"""JSON lines: any labelled set of images, listed in a metadata file, as a data module of anomalib."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from anomalib import TaskType
from anomalib.data.datamodules.base.image import AnomalibDataModule
from anomalib.data.datasets.base.image import AnomalibDataset
from anomalib.data.utils import Split, TestSplitMode, ValSplitMode
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import Transform
from torchvision.transforms.v2.functional import to_dtype, to_image
from torchvision.tv_tensors import Mask

from anomalib_dpclip.data.bit_depth import PhotoReader
from anomalib_dpclip.data.images import read_mask
from anomalib_dpclip.data.items import NamedImageBatch, NamedImageItem
from anomalib_dpclip.data.listing.masks import missing_masks
from anomalib_dpclip.data.listing.metadata import RootFolder, read_lines, read_metadata
from anomalib_dpclip.method.class_names import describe


class JSONLinesDataset(AnomalibDataset):
    """Images, labels, masks and class names that a metadata file lists.

    Args:
        metadata: JSON-lines file; `anomalib_dpclip.data.listing.metadata` describes the format.
        root: Folder that its paths are relative to.
        category: Only images whose ``class_name`` this is; all classes if ``None``.
        split: ``"train"``, ``"test"`` or both (``None``).
        name: Name of the data set, which class descriptions go by; by default the folder of the metadata file, as in
            ``metadata/VisA/full-shot.jsonl``.
        task: ``"segmentation"`` if all anomalous images have masks, ``"classification"`` to leave masks aside; by
            default whichever fits the file.
        augmentations: Augmentations of image and mask.
        bit_depth: Bits that 16-bit images use, where their files do not say.

    Raises:
        FileNotFoundError: If the file or the root is not there.
        ValueError: If the file has a bad line, the category is unknown, or masks are missing that the task needs.
    """

    def __init__(
        self,
        metadata: str | Path,
        root: str | Path,
        category: str | None = None,
        split: str | Split | None = None,
        name: str | None = None,
        task: TaskType | str | None = None,
        augmentations: Transform | None = None,
        bit_depth: int | None = None,
    ) -> None:
        super().__init__(augmentations=augmentations)
        self._read_photo = PhotoReader(bit_depth)
        self._name = name or Path(metadata).resolve().parent.name
        self._category = category
        samples = read_metadata(metadata, root)
        if category is not None:
            classes = sorted(samples.class_name.unique())
            samples = samples[samples.class_name == category]
            if samples.empty:
                raise ValueError(f"no category {category!r} in {metadata}: it has {', '.join(map(repr, classes))}")
        samples.attrs["task"] = _task_of(samples, TaskType(task) if task else None, metadata).value
        if split is not None:
            samples = samples[samples.split == Split(split).value]
        self.samples = samples

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self._name

    def __getitem__(self, index: int) -> NamedImageItem:
        """Read an image and, for segmentation, its mask; a normal image's mask is empty.

        Returns:
            The item, with an image (3, H, W) in [0, 1], and as ``class_name`` what prompts call its class.

        Raises:
            ImageReadError: If image or mask cannot be read, or differ in size; names the file.
        """
        sample = self.samples.iloc[index]
        picture = self._read_photo(sample.image_path)
        image, mask = to_dtype(to_image(picture), torch.float32, scale=True), None
        if self.task == TaskType.SEGMENTATION:
            if sample.label_index:
                mask = Mask(torch.from_numpy(read_mask(sample.mask_path, picture.size, sample.image_path)))
            else:
                mask = Mask(torch.zeros(image.shape[-2:], dtype=torch.uint8))
        if self.augmentations:
            image, mask = (self.augmentations(image), None) if mask is None else self.augmentations(image, mask)
        return NamedImageItem(
            image=image,
            gt_mask=mask,
            gt_label=torch.tensor(int(sample.label_index)),
            image_path=sample.image_path,
            mask_path=sample.mask_path if mask is not None else None,
            class_name=describe(self.name, sample.class_name),
        )

    @property
    def collate_fn(self) -> Callable:
        """Makes a `NamedImageBatch` of items."""
        return NamedImageBatch.collate


class JSONLines(AnomalibDataModule):
    """Data module of a metadata file: own photographs, and data sets that anomalib does not know.

    Lines with ``"split": "train"`` are the training images, all others are tested. Images of different sizes are
    brought to the model's input size one by one, before they are put together as a batch. Without masks there are image
    metrics only; with anomalous images only, there are pixel metrics only.

    Args:
        metadata: JSON-lines file; `anomalib_dpclip.data.listing.metadata` describes the format, `dpclip metadata` writes it.
        root: Folder that its paths are relative to.
        category: Only images whose ``class_name`` this is; all classes if not given, each with its own prompts.
        name: Name of the data set, which class descriptions and domain go by; by default the folder of the metadata
            file, as in ``metadata/VisA/full-shot.jsonl``.
        task: ``segmentation`` if all anomalous images have masks, ``classification`` to leave masks aside; by default
            whichever fits the file. A file in which only some have masks needs ``classification``.
        train_batch_size: Training batch size.
        eval_batch_size: Validation and test batch size.
        num_workers: Number of workers of each data loader.
        train_augmentations: Augmentations of the training images.
        val_augmentations: Augmentations of the validation images.
        test_augmentations: Augmentations of the test images.
        augmentations: Augmentations of every split that has none of its own.
        test_split_mode: ``synthetic`` tests on the normal images and on synthetic defects put into some of them;
            otherwise the test set is what the file says.
        test_split_ratio: Share of the training images for testing, where a synthetic test set has to be made of those.
        val_split_mode: How the validation set is made.
        val_split_ratio: Share of the images for validation, where the mode asks for one.
        seed: Seed of random splits.
        bit_depth: Bits that 16-bit images use, such as 12, where their files do not say: white is ``2 ** bit_depth - 1``.

    Raises:
        ValueError: If the validation mode asks for a folder of its own, which a metadata file has not.
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
        num_workers: int = 8,
        train_augmentations: Transform | None = None,
        val_augmentations: Transform | None = None,
        test_augmentations: Transform | None = None,
        augmentations: Transform | None = None,
        test_split_mode: TestSplitMode | str = TestSplitMode.FROM_DIR,
        test_split_ratio: float = 0.2,
        val_split_mode: ValSplitMode | str = ValSplitMode.SAME_AS_TEST,
        val_split_ratio: float = 0.5,
        seed: int | None = None,
        bit_depth: int | None = None,
    ) -> None:
        super().__init__(
            train_batch_size=train_batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            train_augmentations=train_augmentations,
            val_augmentations=val_augmentations,
            test_augmentations=test_augmentations,
            augmentations=augmentations,
            test_split_mode=test_split_mode,
            test_split_ratio=test_split_ratio,
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
        self._task = task
        self.bit_depth = bit_depth

    @property
    def name(self) -> str:  # type: ignore[override]  # Lightning declares an attribute, anomalib makes it a property
        """Name of the data set."""
        return self._name

    def prepare_data(self) -> None:
        """Make sure that file and root are there, before a model downloads what it learns from.

        Raises:
            FileNotFoundError: If one of them is not.
        """
        next(read_lines(self.metadata), None)
        RootFolder(self.root)

    def _setup(self, _stage: str | None = None) -> None:
        images = JSONLinesDataset(
            self.metadata, self.root, self.category or None, name=self.name, task=self._task, bit_depth=self.bit_depth
        )
        is_train = (images.samples.split == "train").to_numpy()
        self.train_data = images.subsample(np.flatnonzero(is_train).tolist())
        self.test_data = images.subsample(np.flatnonzero(~is_train).tolist())

    def _create_test_split(self) -> None:
        # anomalib would fill a test set that has anomalous images only with training images, but the file says what is
        # tested.
        if self.test_split_mode == TestSplitMode.SYNTHETIC:
            super()._create_test_split()

    def _create_val_split(self) -> None:
        if self.val_split_mode in {ValSplitMode.FROM_TRAIN, ValSplitMode.SYNTHETIC}:
            self._require_training_images(f"val_split_mode {self.val_split_mode.value}")
        super()._create_val_split()

    def train_dataloader(self) -> DataLoader:
        """Training images, in random order.

        Raises:
            ValueError: If the file lists none.
        """
        self._require_training_images("training on it")
        return super().train_dataloader()

    def _require_training_images(self, purpose: str) -> None:
        if len(self.train_data) == 0:
            raise ValueError(f'{self.metadata} has no line with "split": "train", but {purpose} needs training images')


def _task_of(samples: pd.DataFrame, task: TaskType | None, metadata: str | Path) -> TaskType:
    """Task that the masks allow, where ``task`` leaves it open.

    Raises:
        ValueError: If some anomalous images have no mask and the task is not classification.
    """
    if task == TaskType.CLASSIFICATION:
        return task
    anomalous = samples[samples.label_index == 1]
    if task is None and anomalous.mask_path.isna().all():
        return TaskType.CLASSIFICATION
    pairs = zip(samples.label_index == 1, samples.mask_path.notna(), strict=True)
    missing = samples.iloc[missing_masks(pairs)] if anomalous.mask_path.notna().any() else anomalous
    if len(missing):
        raise ValueError(
            f"{len(missing)} of {len(anomalous)} anomalous images in {metadata} have no mask, the first is "
            f"{missing.image_path.iloc[0]}: add the masks, or set task to classification for image metrics only"
        )
    return TaskType.SEGMENTATION
