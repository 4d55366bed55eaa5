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

MAX_JUDGED = 50
"""Photos that the page takes at once; for more there is `dpclip predict`, whose results stay."""

_SHOWN_REGIONS = 10
_NO_PHOTO = "Drop a photo, or several, to begin."


class Judged(NamedTuple):
    """A photo of the page by its file's name, and what the model says of it: nothing if there is a problem."""

    name: str
    prediction: Prediction | None
    problem: str = ""


class Answer(NamedTuple):
    """What the page shows, and behind it the predictions.

    Attributes:
        judged: The photos; none if there is no photo to judge, or nothing can be.
        verdict: Markdown: decision and score of a photo, or a table of several, and what they are based on.
        photo: A single photo, upright, and `heat_map` what is laid over it.
        heat_maps: Heat maps of several photos, with a line for each.
        regions: Markdown: table of a single photo's regions.
    """

    judged: list[Judged]
    verdict: str
    photo: Image.Image | None = None
    heat_map: Image.Image | None = None
    heat_maps: Sequence[tuple[Image.Image, str]] = ()
    regions: str = ""


class Answers:
    """What the page answers when something on it changes; without a checkpoint with photos nothing can be corrected."""

    def __init__(self, predictor: Predictor, checkpoint: Path | None = None) -> None:
        self.predictor, self.checkpoint = predictor, checkpoint
        self._corrected: set[bytes] = set()

    def look(self, paths: list[str] | None, class_name: str | None, good: list[str] | None, threshold: float) -> Answer:
        """Other photos, name or good photos."""
        try:
            _require_kept(good or [])
            if not paths:
                return Answer([], "\n\n".join([_NO_PHOTO, *self.predictor.remarks(class_name, good or ())]))
        except ValueError as error:  # no image, a bad name, or photos that do not go together
            return _no_result(_without_folders(error, good or []))
        if len(paths) > MAX_JUDGED:
            return _no_result(f"{len(paths)} photos are more than the {MAX_JUDGED} that the page takes: use `dpclip predict`")
        judged = []
        for path in paths:
            try:
                _require_kept([path])
                judged.append(Judged(Path(path).name, self.predictor.predict(path, class_name, good or ())))
            except ValueError as error:
                judged.append(Judged(Path(path).name, None, _without_folders(error, [path, *(good or ())])))
        return _answer(judged, threshold)

    def decide(self, judged: list[Judged] | None, *asked: Any) -> Answer:
        """Another threshold, the last of what is asked: there is no need to predict again."""
        return _answer(judged, asked[-1]) if judged else self.look(*asked)

    def correct(self, paths: list[str] | None, class_name: str | None, good: list[str] | None, threshold: float) -> Answer:
        """The photo was fine: the corrected model's answer, and where that has been written."""
        if not paths or self.checkpoint is None:
            return self.look(paths, class_name, good, threshold)
        try:
            _require_kept(paths)
            target = corrected_path(self.checkpoint)
            self._correct(paths, self.checkpoint, target, bool(good))
            outcome = f"**Corrected**, and kept in {target.name} beside the checkpoint. From now on this photo counts as good."
        except (ValueError, OSError) as error:
            outcome = f"**Not corrected:** {_without_folders(error, paths)}"
        answer = self.look(paths, class_name, good, threshold)
        return answer._replace(verdict=f"{answer.verdict}\n\n{outcome}")

    def _correct(self, paths: list[str], checkpoint: Path, target: Path, has_good_photos: bool) -> None:
        """Do what `dpclip correct` does, with one more photo each time."""
        path, *others = paths
        if others:
            raise ValueError("take all photos off but the one that is fine")
        if has_good_photos:
            raise ValueError(f"corrections join the good photos that are kept in {checkpoint.name}. Take the page's off first")
        digest = file_digest(path)
        if digest in self._corrected:
            raise ValueError(f"{path} has been taken for fine before")
        if target.exists() and not self._corrected:
            raise FileExistsError(f"{target.name} is there already, of an earlier time. Start the page with it or move it away")
        self.predictor.correct(path, lambda model: write_corrected(model, checkpoint, target))
        self._corrected.add(digest)


def _answer(judged: list[Judged], threshold: float) -> Answer:
    problems = {each.problem for each in judged}
    if len(problems) == 1 and "" not in problems:  # of a single photo, or a wrong name, or wrong good photos
        return _no_result(*problems)
    # The highest score first, and what cannot be judged last.
    predicted = sorted(((name, each) for name, each, _ in judged if each is not None), key=lambda pair: -pair[1].score)
    rows = [_cells(name, each, threshold) for name, each in predicted]
    heat_maps = [each.heat_map(threshold) for _, each in predicted]
    if len(judged) == 1:
        ((_, score, decision, among_good),), ((_, shown),), (heat_map,) = rows, predicted, heat_maps
        lines = [f"## {decision}\nScore {score}, threshold {threshold:.2f}", *([f"{among_good}."] if among_good else [])]
        regions = regions_table(shown.regions(threshold), shown.min_area)
        return Answer(judged, "\n\n".join(lines + shown.remarks), shown.photo, heat_map, regions=regions)
    captioned = [(each, "  ".join(row[:3])) for each, row in zip(heat_maps, rows, strict=True)]
    rows += [[name, "", problem, ""] for name, each, problem in judged if each is None]
    anomalous = sum(each.is_anomalous(threshold) for _, each in predicted)
    verdict = f"## {anomalous} of {len(judged)} anomalous\nThreshold {threshold:.2f}"
    remarks = dict.fromkeys(remark for _, each in predicted for remark in each.remarks)
    table = markdown_table(["file", "score", "decision", "among good photos"], rows)
    return Answer(judged, "\n\n".join([verdict, table, *remarks]), heat_maps=captioned)


def _cells(name: str, prediction: Prediction, threshold: float) -> list[str]:
    """Name, score, decision, and where the photo stands among good ones."""
    likeness = f"most like {prediction.most_like}" if prediction.most_like else ""
    among_good = ", ".join(filter(None, [str(prediction.standing or ""), likeness]))
    decision = "Anomalous" if prediction.is_anomalous(threshold) else "Normal"
    return [name, f"{prediction.score:.3f}", decision, among_good]


def _no_result(problem: str) -> Answer:
    return Answer([], f"### No result\n{problem}")


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
