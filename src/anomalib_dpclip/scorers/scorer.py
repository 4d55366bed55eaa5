"""What every way to score images has in common."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from anomalib.data import InferenceBatch
from torch import Tensor, nn


class Scorer(ABC):
    """A way to score images: raw maps and raw scores, whose meaning on a data set belongs to post-processing.

    Attributes:
        name: Which way it is. Thresholds belong to the way that they were set with.
        state: What a checkpoint keeps of it; ``None`` where nothing is learned.
        detection_weight: Share of its ``pred_score`` in the image score, in [0, 1]; the rest is the map's peak.
    """

    name: str
    state: nn.Module | None = None
    detection_weight: float = 1.0

    @property
    @abstractmethod
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images that `score` takes."""

    def prepare(self, loaders: Any) -> None:
        """Look at the images of a run, of one data loader or a list, before the first of them is scored."""
        del loaders

    @abstractmethod
    def score(self, images: Tensor, anchors: Tensor, paths: Sequence[str] | None = None) -> InferenceBatch:
        """Raw ``anomaly_map`` ``(B, H, W)`` and ``pred_score`` ``(B,)``, both in [0, 1].

        Args:
            images: Normalised images ``(B, 3, H, W)`` of `image_size`.
            anchors: Text anchors ``(E, 2)``, or ``(B, E, 2)`` where each image has its own class.
            paths: Files of the images, where they are known.
        """
