"""What the page of `dpclip app` answers when something on it changes: pictures and words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from anomalib_dpclip.app.correct_command import corrected_path, write_corrected
from anomalib_dpclip.app.predictor import Prediction, Predictor
from anomalib_dpclip.auxiliary.leakage import file_digest
from anomalib_dpclip.data.regions import Region
from anomalib_dpclip.files.markdown_table import markdown_table

_SHOWN_REGIONS = 10
_NO_PHOTO = "Drop a photo to begin."


class Answer(NamedTuple):
    """What the page shows, and behind it the prediction.

    Attributes:
        prediction: Nothing if there is no photo to judge, or something is wrong.
        photo: The photo, upright.
        heat_map: What is laid over it.
        verdict: Markdown: decision and score, and what they are based on.
        regions: Markdown: table of regions.
    """

    prediction: Prediction | None
    photo: Image.Image | None
    heat_map: Image.Image | None
    verdict: str
    regions: str


class Answers:
    """What the page answers when something on it changes.

    Args:
        predictor: The model.
        checkpoint: Where its memory of photos of a target is from; without one nothing can be corrected.
    """

    def __init__(self, predictor: Predictor, checkpoint: Path | None = None) -> None:
        self.predictor, self.checkpoint = predictor, checkpoint
        self._corrected: set[bytes] = set()

    def look(self, path: str | None, class_name: str | None, good: list[str] | None, threshold: float) -> Answer:
        """Another photo, name or good photos."""
        paths = [*filter(None, [path]), *(good or [])]
        try:
            _require_kept(paths)
            if path is None:
                return _only("\n\n".join([_NO_PHOTO, *self.predictor.remarks(class_name, good or ())]))
            prediction = self.predictor.predict(path, class_name, good or ())
        except ValueError as error:  # no image, a bad name, or photos that do not go together
            return _only(f"### No result\n{_without_folders(error, paths)}")
        return _answer(prediction, threshold)

    def decide(self, prediction: Prediction | None, *asked: Any) -> Answer:
        """Another threshold, the last of what is asked: there is no need to predict again."""
        return self.look(*asked) if prediction is None else _answer(prediction, asked[-1])

    def correct(self, path: str | None, class_name: str | None, good: list[str] | None, threshold: float) -> Answer:
        """The photo was fine: the corrected model's answer, and where that has been written."""
        if path is None or self.checkpoint is None:
            return self.look(path, class_name, good, threshold)
        try:
            _require_kept([path])
            target = self._correct(path, self.checkpoint, bool(good))
            outcome = f"**Corrected**, and kept in {target.name} beside the checkpoint. From now on this photo counts as good."
        except (ValueError, OSError) as error:
            outcome = f"**Not corrected:** {_without_folders(error, [path])}"
        answer = self.look(path, class_name, good, threshold)
        return answer._replace(verdict=f"{answer.verdict}\n\n{outcome}")

    def _correct(self, path: str, checkpoint: Path, has_good_photos: bool) -> Path:
        """Do what `dpclip correct` does, with one more photo each time; where it has been written."""
        target = corrected_path(checkpoint)
        if has_good_photos:
            raise ValueError(
                f"corrections join the good photos that are kept in {checkpoint.name}. Take those on the page off first"
            )
        digest = file_digest(path)
        if digest in self._corrected:
            raise ValueError(f"{path} has been taken for fine before")
        if target.exists() and not self._corrected:
            raise FileExistsError(
                f"{target.name} is there already, of an earlier time. Start the page with it to go on, or move it away"
            )
        self.predictor.correct(path, lambda model: write_corrected(model, checkpoint, target))
        self._corrected.add(digest)
        return target


def _answer(prediction: Prediction, threshold: float) -> Answer:
    decision = "Anomalous" if prediction.is_anomalous(threshold) else "Normal"
    verdict = f"## {decision}\nScore {prediction.score:.3f}, threshold {threshold:.2f}"
    regions = regions_table(prediction.regions(threshold), prediction.min_area)
    pictures = prediction.photo, prediction.heat_map(threshold)
    return Answer(prediction, *pictures, "\n\n".join([verdict, *prediction.remarks]), regions)


def _only(verdict: str) -> Answer:
    return Answer(None, None, None, verdict, "")


def _require_kept(paths: Sequence[str]) -> None:
    gone = [path for path in paths if not Path(path).is_file()]
    if gone:
        raise ValueError(f"{', '.join(gone)}: photos are deleted from here after an hour or two. Drop it again")


def _without_folders(error: Exception, paths: Sequence[str]) -> str:
    """The folders are the server's, and mean nothing to whoever dropped the photos."""
    message = str(error)
    for path in paths:
        message = message.replace(path, Path(path).name)
    return message


def regions_table(regions: Sequence[Region], min_area: int = 0) -> str:
    """The first regions as a table: score, area and box in pixels of the photo."""
    if not regions:
        return f"No region{f' of at least {min_area} pixels' if min_area else ''} exceeds the threshold."
    rows = [
        [f"{each.score:.3f}", f"{each.area:,}", f"{each.left}, {each.top} to {each.right}, {each.bottom}"]
        for each in regions[:_SHOWN_REGIONS]
    ]
    left_out = len(regions) - len(rows)
    more = f"\n\nand {left_out} more" if left_out else ""
    return markdown_table(["score", "area in pixels", "box: left, top to right, bottom"], rows) + more
