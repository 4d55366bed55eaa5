"""What the page of `dpclip app` shows of a photo: score, heat map and decision. It knows nothing of the page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from anomalib_dpclip.app.good_photos import GoodPhotos, good_photos
from anomalib_dpclip.data.images import read_image
from anomalib_dpclip.data.regions import Region, find_regions
from anomalib_dpclip.method.class_names import UNKNOWN_CLASS
from anomalib_dpclip.model.lightning_model import DPCLIP
from anomalib_dpclip.references.few_shot import Knowledge
from anomalib_dpclip.scorers.references import as_tensor
from anomalib_dpclip.visualization.heat_map import boxed, color_range, heat_map, shown_map

SHOWN_SIZE = 640
"""Longer side of the pictures on the page, in pixels, whatever the photo's: outlines are then as thick on all of them."""

MAX_PIXELS = 50_000_000
"""Of a photo: those of larger cameras have to be made smaller. Looking at one takes some 30 bytes a pixel."""

MAX_NAME_LENGTH = 200
"""Characters of a class name; CLIP reads no more than 77 tokens anyway."""

UNCALIBRATED = (
    "**Not calibrated:** these weights carry no thresholds. 0.5 is only the point of indifference, and the colours show "
    "each photo's own range."
)

_OUTLINE, _TEXT = 2, 16


@dataclass(frozen=True)
class Prediction:
    """A photo and what the model says of it. Nothing in it depends on the threshold, which can be moved afterwards.

    Attributes:
        photo: The photo, upright, its longer side `SHOWN_SIZE`.
        anomaly_map: Normalised ``(H, W)`` in [0, 1], of the model's size.
        score: Image score in [0, 1].
        color_range: Values of the map that get the lowest and highest colour.
        size: Width and height of the photo itself, whose pixels regions are counted in.
        min_area: Pixels that a region has at least.
        remarks: Lines on what it was judged by.
    """

    photo: Image.Image
    anomaly_map: npt.NDArray[np.float32]
    score: float
    color_range: tuple[float, float] = (0.0, 1.0)
    size: tuple[int, int] | None = None
    min_area: int = 0
    remarks: list[str] = field(default_factory=list)

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
        covered = shown_map(torch.from_numpy(kept), self._shown) > 0.5
        return boxed(heat_map(self.photo, shades, covered, _OUTLINE), boxes, _TEXT)

    @cached_property
    def heat(self) -> npt.NDArray[np.float32]:
        """The map in the size of the photo that is shown."""
        return shown_map(torch.from_numpy(self.anomaly_map), self._shown)

    def regions(self, threshold: float) -> list[Region]:
        """Regions that exceed the threshold, in pixels of the photo itself, the highest score first."""
        return self._regions(threshold)[0]

    def _regions(self, threshold: float) -> tuple[list[Region], npt.NDArray[np.bool_]]:
        size = self.size or self.photo.size
        return find_regions(self.anomaly_map, self.anomaly_map > threshold, size, self.min_area)

    @property
    def _shown(self) -> tuple[int, int]:
        return self.photo.height, self.photo.width


class Predictor:
    """One loaded model for photos of any class, and of any target of which good photos are given.

    It keeps no state between photos but text anchors of a number of classes and what the last good photos told.

    Args:
        model: DPCLIP with adapters, built without a ``class_name``.
    """

    def __init__(self, model: DPCLIP) -> None:
        self.model = model.eval()
        self._own: Knowledge = model.knowledge
        self._turn = Lock()  # of those whose photos the one model is put to
        self._told: tuple[tuple[str, tuple[bytes, ...]], Knowledge] | None = None

    def score(self, path: str | Path) -> float:
        """Image score of a photo of the class that the model is for.

        Raises:
            ImageReadError: If the file cannot be read as an image.
        """
        photo = self._read(path)
        with self._turn:
            self.model.knowledge = self._own
            return self._judge(photo, self.model.model.anchors)[1]

    def predict(self, path: str | Path, class_name: str | None = None, good: Sequence[str] = ()) -> Prediction:
        """Look at a photo: what ``anomalib predict`` does.

        Args:
            path: Image file.
            class_name: What it shows; ``object`` if that is empty.
            good: Files of good photos of the same, as in a folder given with ``--model.few_shot_source``. What the model knows
                itself counts again without them.

        Raises:
            ImageReadError: If a file cannot be read as an image, or has more than `MAX_PIXELS`.
            ValueError: If the name is longer than `MAX_NAME_LENGTH`, a photo has another size than the picture of what to
                ignore, or the good photos are too many or include the one to judge.
        """
        name = _named(class_name)
        photo = self._read(path)
        given = good_photos(good, self.model.seed, str(path))
        with self._turn:
            self._know(name, given)
            heat, score = self._judge(photo, self.model.anchors_for(name))
        scale = SHOWN_SIZE / max(photo.size)
        shown = photo.resize([max(1, round(scale * side)) for side in photo.size], Image.Resampling.BICUBIC)
        remarks = self._remarks(name, given)
        if min(photo.size) < min(self.model.model.backbone.grid):
            remarks.append(f"**{photo.width}x{photo.height} pixels are too few to judge:** the answer means nothing.")
        colors = color_range(heat, self._is_calibrated(given))
        return Prediction(shown, heat, score, colors, photo.size, self.model.min_area, remarks)

    def remarks(self, class_name: str | None = None, good: Sequence[str] = ()) -> list[str]:
        """Lines on what photos will be judged by.

        Raises:
            ImageReadError: As in `predict`.
            ValueError: As in `predict`.
        """
        given = good_photos(good, self.model.seed)
        for path in given.paths:
            self._read(path)
        return self._remarks(_named(class_name), given)

    def correct(self, path: str | Path, keep: Callable[[DPCLIP], None]) -> None:
        """Take a photo for normal from now on.

        Args:
            path: Image file.
            keep: Is given the corrected model; if it fails nothing is corrected.

        Raises:
            ImageReadError: As in `predict`.
            ValueError: If the model knows no good photos that this one could join.
        """
        photo = self._read(path)
        with self._turn:
            self.model.knowledge = self._own
            self.model.add_corrections([photo])
            keep(self.model)
            self._own = self.model.knowledge

    @torch.inference_mode()
    def _judge(self, photo: Image.Image, anchors: torch.Tensor) -> tuple[npt.NDArray[np.float32], float]:
        """Normalised map ``(H, W)`` of the model's size, and score."""
        image = self.model.pre_processor.transform(as_tensor(photo).unsqueeze(0))
        prediction = self.model.post_processor(self.model.model.predict(image, anchors))
        return prediction.anomaly_map[0].numpy(), prediction.pred_score.item()

    def _read(self, path: str | Path) -> Image.Image:
        photo = read_image(path, MAX_PIXELS)
        if self.model.model.ignored is not None:
            self.model.model.ignored.require_size(*photo.size, str(path))
        return photo

    def _know(self, name: str, given: GoodPhotos) -> None:
        """Let the model know what good photos tell, or what it knows itself if there are none."""
        if not given.paths:
            self.model.knowledge = self._own
            return
        photos = (name, given.digests)
        if self._told is None or self._told[0] != photos:
            self._told = photos, self._look_at(name, [self._read(path) for path in given.paths])
        self.model.knowledge = self._told[1]

    def _look_at(self, name: str, photos: Sequence[Image.Image]) -> Knowledge:
        """What photos tell of a class, whose name weighs in their thresholds."""
        anchors = self.model.model.anchors
        own = anchors.clone()
        try:
            anchors.copy_(self.model.anchors_for(name))
            self.model.set_references(photos)
        finally:
            anchors.copy_(own)
        return self.model.knowledge

    def _remarks(self, name: str, given: GoodPhotos) -> list[str]:
        lines = [f"Known of the target: {self._knows(name, len(given.paths))}.", *given.remarks]
        return lines if self._is_calibrated(given) else [*lines, UNCALIBRATED]

    def _knows(self, name: str, count: int) -> str:
        kept = 0 if self._own.memory is None else int(self._own.memory.photos)
        if count:
            return f"**{_photos(count)}**{f', in place of the {kept} kept in the checkpoint' if kept else ''}"
        if kept:
            return f"**{_photos(kept)}** kept in the checkpoint"
        return "**nothing**, not even its name" if name == UNKNOWN_CLASS else "**nothing but its name**"

    def _is_calibrated(self, given: GoodPhotos) -> bool:
        """Whether thresholds are in force that somebody set: good photos set theirs."""
        return bool(given.paths) or self._own.calibration is None or bool(self._own.calibration.is_set)


def _photos(count: int) -> str:
    return f"{count} good {'photo' if count == 1 else 'photos'}"


def _named(class_name: str | None) -> str:
    name = (class_name or "").strip() or UNKNOWN_CLASS
    if len(name) > MAX_NAME_LENGTH:
        raise ValueError(f"the name of what the photo shows has {len(name)} characters, {MAX_NAME_LENGTH} are the most")
    return name
