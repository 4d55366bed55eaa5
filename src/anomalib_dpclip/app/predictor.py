"""What the page of `dpclip app` shows of a photo: score, heat map and decision. It knows nothing of the page."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torchvision.transforms.v2.functional import to_dtype, to_image

from anomalib_dpclip.data.images import read_image
from anomalib_dpclip.method.anomaly_map import resize_map
from anomalib_dpclip.method.class_names import UNKNOWN_CLASS
from anomalib_dpclip.model.heat_map import heat_map
from anomalib_dpclip.model.lightning_model import DPCLIP

SHOWN_SIZE = 640
"""Longer side of the pictures on the page, in pixels, whatever the photo's: outlines are then as thick on all of them."""

_OUTLINE = 2


@dataclass(frozen=True)
class Prediction:
    """A photo and what the model says of it. Nothing in it depends on the threshold, which can be moved afterwards.

    Attributes:
        photo: The photo, upright, its longer side `SHOWN_SIZE`.
        heat: Normalised anomaly map ``(H, W)`` in [0, 1], of the size of ``photo``.
        score: Image score in [0, 1].
        color_range: Values of the map that get the lowest and highest colour.
    """

    photo: Image.Image
    heat: npt.NDArray[np.float32]
    score: float
    color_range: tuple[float, float] = (0.0, 1.0)

    def is_anomalous(self, threshold: float) -> bool:
        """Decide as the model does, whose own threshold is at 0.5."""
        return self.score > threshold

    def heat_map(self, threshold: float) -> Image.Image:
        """Photo with the anomaly map laid over it, and a white line around what exceeds the threshold."""
        low, high = self.color_range
        shades = ((self.heat - low) / (high - low)).clip(0, 1)
        return heat_map(self.photo, shades, self.heat > threshold, _OUTLINE)


class Predictor:
    """One loaded model for photos of any class. It keeps no state between photos but each class's text anchors.

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
    def predict(self, path: str | Path, class_name: str | None = None) -> Prediction:
        """Look at a photo: what ``anomalib predict`` does.

        Args:
            path: Image file.
            class_name: What it shows; ``object`` if that is empty.

        Raises:
            ImageReadError: If the file cannot be read as an image.
        """
        photo = read_image(path)
        image = to_dtype(to_image(photo), torch.float32, scale=True).unsqueeze(0)
        anchors = self.model.anchors_for((class_name or "").strip() or UNKNOWN_CLASS)
        raw = self.model.model.predict(self.model.pre_processor.transform(image), anchors)
        prediction = self.model.post_processor(raw)
        shown = ImageOps.contain(photo, (SHOWN_SIZE, SHOWN_SIZE), Image.Resampling.BICUBIC)
        heat = resize_map(prediction.anomaly_map, (shown.height, shown.width))[0].numpy()
        return Prediction(shown, heat, prediction.pred_score.item(), self._color_range(heat))

    def _color_range(self, heat: npt.NDArray[np.float32]) -> tuple[float, float]:
        """All of [0, 1]; without a calibration maps fill little of it, and a photo's own range is all there is to go by."""
        low, high = float(heat.min()), float(heat.max())
        return (0.0, 1.0) if self.is_calibrated or low == high else (low, high)
