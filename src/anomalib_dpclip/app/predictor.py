"""What the page of `dpclip app` shows of a photo: score, heat map and decision. It knows nothing of the page."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from anomalib_dpclip.data.images import read_image
from anomalib_dpclip.data.regions import Region, find_regions
from anomalib_dpclip.method.anomaly_map import resize_map
from anomalib_dpclip.method.class_names import UNKNOWN_CLASS
from anomalib_dpclip.model.heat_map import boxed, color_range, heat_map
from anomalib_dpclip.model.lightning_model import DPCLIP
from anomalib_dpclip.model.references import as_tensor

SHOWN_SIZE = 640
"""Longer side of the pictures on the page, in pixels, whatever the photo's: outlines are then as thick on all of them."""

MOST_PIXELS = 50_000_000
"""Of a photo: those of larger cameras have to be made smaller. Looking at one takes some 30 bytes a pixel."""

LONGEST_NAME = 200
"""Characters of a class name; CLIP reads no more than 77 tokens anyway."""

_OUTLINE, _TEXT = 2, 16


@dataclass(frozen=True)
class Prediction:
    """A photo and what the model says of it. Nothing in it depends on the threshold, which can be moved afterwards.

    Attributes:
        photo: The photo, upright, its longer side `SHOWN_SIZE`.
        heat: Normalised anomaly map ``(H, W)`` in [0, 1], of the size of ``photo``.
        score: Image score in [0, 1].
        color_range: Values of the map that get the lowest and highest colour.
        size: Width and height of the photo itself, whose pixels regions are counted in.
        min_area: Pixels that a region has at least.
    """

    photo: Image.Image
    heat: npt.NDArray[np.float32]
    score: float
    color_range: tuple[float, float] = (0.0, 1.0)
    size: tuple[int, int] | None = None
    min_area: int = 0

    def is_anomalous(self, threshold: float) -> bool:
        """Decide as the model does, whose own threshold is at 0.5."""
        return self.score > threshold

    def heat_map(self, threshold: float) -> Image.Image:
        """Photo with the anomaly map laid over it, a white line around what exceeds the threshold, and the regions' boxes."""
        low, high = self.color_range
        shades = ((self.heat - low) / (high - low)).clip(0, 1)
        regions, kept = self._regions(threshold)
        width, height = self.size or self.photo.size
        boxes = [region.scaled(self.photo.width / width, self.photo.height / height) for region in regions]
        return boxed(heat_map(self.photo, shades, kept, _OUTLINE), boxes, _TEXT)

    def regions(self, threshold: float) -> list[Region]:
        """Regions that exceed the threshold, in pixels of the photo itself, the highest score first."""
        return self._regions(threshold)[0]

    def _regions(self, threshold: float) -> tuple[list[Region], npt.NDArray[np.bool_]]:
        return find_regions(self.heat, self.heat > threshold, self.size or self.photo.size, self.min_area)


class Predictor:
    """One loaded model for photos of any class. It keeps no state between photos but text anchors of a number of classes.

    Args:
        model: DPCLIP with adapters, built without a ``class_name``.
    """

    def __init__(self, model: DPCLIP) -> None:
        self.model = model.eval()

    @property
    def is_calibrated(self) -> bool:
        """Whether the adapters carry a calibration; without one 0.5 is only the point of indifference."""
        return bool(self.model.post_processor.calibration.is_set)

    @torch.inference_mode()
    def score(self, path: str | Path) -> float:
        """Image score of a photo of the class that the model is for.

        Raises:
            ImageReadError: If the file cannot be read as an image.
        """
        image = as_tensor(read_image(path)).unsqueeze(0)
        raw = self.model.model.predict(self.model.pre_processor.transform(image), self.model.model.anchors)
        return self.model.post_processor(raw).pred_score.item()

    @torch.inference_mode()
    def predict(self, path: str | Path, class_name: str | None = None) -> Prediction:
        """Look at a photo: what ``anomalib predict`` does.

        Args:
            path: Image file.
            class_name: What it shows; ``object`` if that is empty.

        Raises:
            ImageReadError: If the file cannot be read as an image, or has more than `MOST_PIXELS`.
            ValueError: If the name is longer than `LONGEST_NAME`, or the photo has another size than the picture of what to
                ignore.
        """
        name = (class_name or "").strip() or UNKNOWN_CLASS
        if len(name) > LONGEST_NAME:
            raise ValueError(f"the name of what the photo shows has {len(name)} characters, {LONGEST_NAME} are the most")
        photo = read_image(path, MOST_PIXELS)
        if self.model.model.ignored is not None:
            self.model.model.ignored.require_size(*photo.size, str(path))
        image = as_tensor(photo).unsqueeze(0)
        anchors = self.model.anchors_for(name)
        raw = self.model.model.predict(self.model.pre_processor.transform(image), anchors)
        prediction = self.model.post_processor(raw)
        scale = SHOWN_SIZE / max(photo.size)
        shown = photo.resize([max(1, round(scale * side)) for side in photo.size], Image.Resampling.BICUBIC)
        heat = resize_map(prediction.anomaly_map, (shown.height, shown.width))[0].numpy()
        score, colors = prediction.pred_score.item(), color_range(heat, self.is_calibrated)
        return Prediction(shown, heat, score, colors, photo.size, self.model.min_area)
