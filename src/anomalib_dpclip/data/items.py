"""Items and batches that also carry the class that each image shows, for a batch may mix them, and if its mask is known."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from anomalib.data.dataclasses.numpy import NumpyImageBatch, NumpyImageItem
from anomalib.data.dataclasses.torch import ImageBatch, ImageItem
from torch import Tensor


@dataclass
class NumpyNamedImageItem(NumpyImageItem):
    """`NamedImageItem` with numpy arrays."""

    class_name: str | None = None
    has_mask: npt.NDArray[np.bool_] | None = None


@dataclass
class NumpyNamedImageBatch(NumpyImageBatch):
    """`NamedImageBatch` with numpy arrays."""

    item_class = NumpyNamedImageItem
    class_name: list[str] | None = None
    has_mask: npt.NDArray[np.bool_] | None = None


@dataclass
class NamedImageItem(ImageItem):
    """An item with a readable class name, and a scalar bool: false where ``gt_mask`` holds the place of an unknown mask."""

    numpy_class: ClassVar[type[NumpyNamedImageItem]] = NumpyNamedImageItem
    class_name: str | None = None
    has_mask: Tensor | None = None


@dataclass
class NamedImageBatch(ImageBatch):
    """A batch of `NamedImageItem`: one name an image, and ``has_mask`` ``(B,)``."""

    item_class: ClassVar[type[NamedImageItem]] = NamedImageItem
    numpy_class: ClassVar[type[NumpyNamedImageBatch]] = NumpyNamedImageBatch
    class_name: list[str] | None = None
    has_mask: Tensor | None = None
