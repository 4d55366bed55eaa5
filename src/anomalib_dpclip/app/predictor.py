"""What the page of `dpclip app` shows of a photo: score, heat map and decision. It knows nothing of the page."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from anomalib_dpclip.app.good_photos import GoodPhotos, good_photos
from anomalib_dpclip.clip.mini_clip import unknown_words
from anomalib_dpclip.clip.pretraining import MINI
from anomalib_dpclip.data.images import read_image
from anomalib_dpclip.data.regions import Region, find_regions
from anomalib_dpclip.data_sets.class_names import UNKNOWN_CLASS, readable_name
from anomalib_dpclip.model import good_images as memories
from anomalib_dpclip.model.lightning_model import DPCLIP
from anomalib_dpclip.model.settled_thresholds import calibrate_on_references
from anomalib_dpclip.post_processing.calibration import Calibration
from anomalib_dpclip.post_processing.score_text import Standing
from anomalib_dpclip.scorers.memory_scorer import MemoryScorer
from anomalib_dpclip.scorers.references import image_tensor
from anomalib_dpclip.scorers.scorer import Scorer
from anomalib_dpclip.visualization.heat_map import boxed, color_range, heat_map, shown_map

SHOWN_SIZE = 640
"""Longer side of the pictures on the page, in pixels, whatever the photo's: outlines are then as thick on all of them."""

MAX_PIXELS = 50_000_000
"""Of a photo: those of larger cameras have to be made smaller. Scoring one takes some 30 bytes a pixel."""

MAX_NAME_LENGTH = 200
"""Characters of a class name; CLIP reads no more than 77 tokens anyway."""

UNCALIBRATED = (
    "**Not calibrated:** there are no thresholds of what the photo shows. 0.5 is only the point of indifference, and the "
    "colours show each photo's own range."
)

SHOWN_WORDS = 5
"""Words of a name that are said to be unknown to the backbone."""

_OUTLINE, _TEXT = 2, 16


@dataclass(frozen=True)
class Prediction:
    """A photo and what the model says of it. Nothing in it depends on the threshold, which can be moved afterwards.

    Attributes:
        photo: The photo, upright, its longer side `SHOWN_SIZE`.
        anomaly_map: Normalised ``(H, W)`` in [0, 1], of the model's size.
        score: Image score in [0, 1].
        color_range: Values of the map that get the lowest and highest colour.
        size: Width and height of the photo itself, whose pixels regions are counted in. Default: those of `photo`.
        min_area: Pixels that a region has at least.
        standing: Where the score stands among those of good photos, if they are known.
        most_like: File name of the good photo that looks most like it; empty where they are not known by name.
        remarks: Lines on what it was scored by.
    """

    photo: Image.Image
    anomaly_map: npt.NDArray[np.float32]
    score: float
    color_range: tuple[float, float] = (0.0, 1.0)
    size: tuple[int, int] | None = None
    min_area: int = 0
    standing: Standing | None = None
    most_like: str = ""
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
        covered = shown_map(torch.from_numpy(kept), self.photo.size[::-1]) > 0.5
        return boxed(heat_map(self.photo, shades, covered, _OUTLINE), boxes, _TEXT)

    @cached_property
    def heat(self) -> npt.NDArray[np.float32]:
        """The map in the size of the photo that is shown."""
        return shown_map(torch.from_numpy(self.anomaly_map), self.photo.size[::-1])

    def regions(self, threshold: float) -> list[Region]:
        """Regions that exceed the threshold, in pixels of the photo itself, the highest score first."""
        return self._regions(threshold)[0]

    def _regions(self, threshold: float) -> tuple[list[Region], npt.NDArray[np.bool_]]:
        return find_regions(self.anomaly_map, self.anomaly_map > threshold, self.size or self.photo.size, self.min_area)


Scoring: TypeAlias = tuple[Scorer, Calibration]
"""How photos are scored, and the ranges and thresholds that say what their scores mean."""


class Predictor:
    """One loaded model for photos of any class or good photos; of the last ones it keeps the memory."""

    def __init__(self, model: DPCLIP) -> None:
        self.model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        self._turn = Lock()  # of those whose photos the one model is put to
        self._remembered: tuple[tuple[str, tuple[bytes, ...]], Scoring] | None = None

    @property
    def class_name(self) -> str:
        """Class that the model is of; ``object`` if nobody has named one."""
        return self.model.target.anchor_class or self.model.target.class_name or UNKNOWN_CLASS

    def score(self, path: str | Path) -> float:
        """Image score of a photo of the class that the model is of; an `ImageReadError` if it is none."""
        photo = self._read(path)
        with self._turn:
            return self._predict(photo, self.model.model.anchors, self.model.scorer, self.model.post_processor.calibration)[1]

    def predict(self, path: str | Path, class_name: str | None = None, good: Sequence[str] = ()) -> Prediction:
        """Score a photo: what ``dpclip predict`` does.

        Args:
            path: Image file.
            class_name: What it shows; the model's own class if that is empty.
            good: Files of good photos of the same, as in a folder given with ``--model.few_shot_source``. What the model knows
                itself counts again without them.

        Raises:
            ImageReadError: If a file cannot be read as an image, or has more than `MAX_PIXELS`.
            ValueError: If the name is longer than `MAX_NAME_LENGTH`, a photo has another size than the picture of what to
                ignore, or the good photos are too many or include the one to score.
        """
        name = self._named(class_name)
        photo = self._read(path)
        given = good_photos(good, self.model.seed, str(path))
        with self._turn:
            scorer, calibration = self._scoring(name, given)
            heat, score, most_like = self._predict(photo, self.model.target.anchors_for(name), scorer, calibration)
        scale = SHOWN_SIZE / max(photo.size)
        shown = photo.resize([max(1, round(scale * side)) for side in photo.size], Image.Resampling.BICUBIC)
        remarks = self._remarks(name, given, calibration)
        standing = calibration.standing(score) if given.paths or name == self.class_name else None
        if min(photo.size) < min(self.model.model.backbone.grid):
            remarks.append(f"**{photo.width}x{photo.height} pixels are too few to judge:** the answer means nothing.")
        colors = color_range(heat, bool(calibration.is_set))
        return Prediction(shown, heat, score, colors, photo.size, self.model.min_area, standing, most_like, remarks)

    def remarks(self, class_name: str | None = None, good: Sequence[str] = ()) -> list[str]:
        """Lines on what photos will be scored by. Arguments and errors are those of `predict`."""
        given = good_photos(good, self.model.seed)
        for path in given.paths:
            self._read(path)
        name = self._named(class_name)
        return self._remarks(name, given, None if given.paths else self._scoring(name, given)[1])

    def correct(self, path: str | Path, keep: Callable[[DPCLIP], None]) -> None:
        """Take a photo for normal from now on, unless `keep`, given the corrected model, fails. Raises as `predict`."""
        photo = self._read(path)
        with self._turn:
            scorer, calibration = self.model.scorer, deepcopy(self.model.post_processor.calibration)
            try:
                self.model.add_good_images([photo])
                keep(self.model)
            except BaseException:
                self.model.scorer = scorer
                self.model.post_processor.calibration.copy_from(calibration)
                raise

    @torch.inference_mode()
    def _predict(
        self, photo: Image.Image, anchors: Tensor, scorer: Scorer, calibration: Calibration
    ) -> tuple[npt.NDArray[np.float32], float, str]:
        """Normalised map ``(H, W)`` of the model's size, score, and the good photo that looks most like it."""
        device = self.model.model.anchors.device
        image = self.model.pre_processor.transform(image_tensor(photo).unsqueeze(0).to(device))
        prediction = self.model.post_processor.scaled(scorer.score(image, anchors.to(device)), calibration.scale)
        (most_like,) = memories.most_like(self.model, image, scorer)
        return prediction.anomaly_map[0].cpu().numpy(), prediction.pred_score.item(), most_like

    def _read(self, path: str | Path) -> Image.Image:
        photo = read_image(path, MAX_PIXELS)
        self.model.region.require_size(*photo.size, str(path))
        return photo

    def _scoring(self, name: str, given: GoodPhotos) -> Scoring:
        """By good photos, or by what the model knows itself if there are none; thresholds are of one class."""
        model, processor, key = self.model, self.model.post_processor, (name, given.digests)
        if not given.paths:
            if name == self.class_name or processor.calibration.is_default:
                return model.scorer, processor.calibration
            return model.text_scorer(), processor.auxiliary_calibration
        if self._remembered is None or self._remembered[0] != key:
            anchors = model.target.anchors_for(name).to(model.model.anchors.device)
            images = (image_tensor(self._read(path)) for path in given.paths)
            scorer = memories.remember(model, images, anchors, given.paths)
            calibration = Calibration().to(anchors.device)
            calibrate_on_references(calibration, scorer, processor.false_alarm_rate)
            self._remembered = key, (scorer, calibration)
        return self._remembered[1]

    def _remarks(self, name: str, given: GoodPhotos, calibration: Calibration | None) -> list[str]:
        own, count = self.model.scorer, len(given.paths)
        kept = int(own.state.memory.photos) if isinstance(own, MemoryScorer) else 0
        known = f"**{count or kept} good {'photo' if (count or kept) == 1 else 'photos'}**"
        if not count and not kept:
            known = "**nothing**, not even its name" if name == UNKNOWN_CLASS else "**nothing but its name**"
        elif kept:
            known += f", in place of the {kept} kept in the checkpoint" if count else " kept in the checkpoint"
        lines = [f"Known of the target: {known}."]
        words = unknown_words(name)[:SHOWN_WORDS] if self.model.configuration.backbone == MINI else []
        lines += [f"**The mini backbone does not know** {', '.join(words)}: to it that is any object."] if words else []
        lines += given.remarks
        if calibration is not None and not calibration.is_set:
            lines.append(UNCALIBRATED)
        elif calibration is not None and not given.paths and name != self.class_name:
            lines.append(f"The thresholds are not of {name}: {calibration.threshold_basis}.")
        return lines

    def _named(self, class_name: str | None) -> str:
        name = readable_name(class_name) if class_name and class_name.strip() else self.class_name
        if len(name) > MAX_NAME_LENGTH:
            raise ValueError(f"the name of what the photo shows has {len(name)} characters, {MAX_NAME_LENGTH} are the most")
        return name
