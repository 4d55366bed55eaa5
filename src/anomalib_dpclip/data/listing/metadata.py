"""The JSON-lines format that lists a labelled set: one object a line, one line an image.

``{"image_path": "test/hole/001.png", "label": 1, "class_name": "candle", "mask_path": "masks/hole/001.png"}``

- ``image_path``, ``mask_path``: relative to the root of the data set, which they may not leave; ``mask_path`` is
  absent, null or empty where there is no mask;
- ``label``: 1, 1.0 or true for anomalous, 0, 0.0 or false for normal;
- ``class_name``: the category, as the data set spells it;
- ``split``: ``"train"`` or ``"test"``, the default;
- other keys are ignored, and so are empty lines.
"""

import json
import os
import reprlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from anomalib_dpclip.files.atomic_write import atomic_write


class Sample(NamedTuple):
    """A labelled image: what one line of a metadata file says."""

    image_path: str
    label: int
    class_name: str
    mask_path: str | None = None
    split: str = "test"


def to_frame(samples: Iterable[Sample]) -> pd.DataFrame:
    """Put samples into the table that anomalib's datasets are based on, one row each, with their ``class_name``.

    ``mask_path`` is ``None`` where there is no mask, and for normal images, whose masks are empty by definition.
    """
    rows = list(samples)
    frame = pd.DataFrame(rows, columns=Sample._fields).rename(columns={"label": "label_index"})
    frame["label"] = ["abnormal" if sample.label else "normal" for sample in rows]
    # As objects: pandas would turn None into NaN, which is true.
    frame["mask_path"] = pd.Series([sample.mask_path if sample.label else None for sample in rows], dtype=object)
    return frame[["image_path", "split", "label", "label_index", "mask_path", "class_name"]]


def few_shot(samples: pd.DataFrame, shots: int, seed: int) -> pd.DataFrame:
    """Choose k images of each category, half of them anomalous where there are enough, in the order they came.

    An odd k takes one more anomalous image, because those show both kinds of pixel. What is missing of one label is
    made up from the other, and a category of fewer than k images is taken whole. The choice in a category depends on
    its own images alone, and a smaller choice is contained in a larger one, as long as both labels suffice.
    """
    if shots < 1:
        raise ValueError(f"shots must be at least 1, not {shots}: it is the number of images of each category")
    numbered = samples.reset_index(drop=True)
    chosen: list[int] = []
    # Sorted, so that the choice doesn't depend on the order in which a file or folder lists its images.
    for _, category in numbered.sort_values("image_path", kind="stable").groupby("class_name"):
        # pandas draws from RandomState, whose numbers NumPy promises never to change.
        shuffled = category.sample(frac=1, random_state=seed)
        anomalous = shuffled.index[shuffled.label_index == 1]
        normal = shuffled.index[shuffled.label_index == 0]
        wanted_anomalous = max((shots + 1) // 2, shots - len(normal))
        chosen += anomalous[:wanted_anomalous].tolist()
        chosen += normal[: shots - min(wanted_anomalous, len(anomalous))].tolist()
    return numbered.loc[sorted(chosen)].reset_index(drop=True)


def read_metadata(path: str | Path, root: str | Path) -> pd.DataFrame:
    """Read a metadata file as `to_frame` has it, and make sure that the images and masks it names are there, in the root.

    A file or root that is not there is a FileNotFoundError, a bad line a ValueError as ``file:line: what is wrong``.
    """
    folder = RootFolder(root)
    samples = []
    for line, text in read_lines(path):
        try:
            sample = parse_line(text)
            image = folder.locate(sample.image_path)
            mask = folder.locate(sample.mask_path) if sample.mask_path else None
        except ValueError as error:
            raise ValueError(f"{path}:{line}: {error} (`dpclip metadata {root} --check {path}` lists all problems)") from error
        samples.append(sample._replace(image_path=image, mask_path=mask))
    if not samples:
        raise ValueError(f"{path} lists no images")
    return to_frame(samples)


def write_metadata(samples: pd.DataFrame, root: str | Path, path: str | Path) -> None:
    """Write rows as `to_frame` has them, with paths relative to the root, in which they must lie; the whole file or nothing."""
    lines = []
    for row in samples.itertuples():
        image = _relative(row.image_path, root)
        sample = {"image_path": image, "label": int(row.label_index), "class_name": row.class_name}
        if row.mask_path:
            sample["mask_path"] = _relative(row.mask_path, root)
        if row.split != "test":
            sample["split"] = row.split
        lines.append(json.dumps(sample) + "\n")
    with atomic_write(Path(path)) as unfinished:
        unfinished.write_text("".join(lines), encoding="utf-8")


def read_lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the text of each line that is not empty; a FileNotFoundError if there is no such file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no metadata file {path}: `dpclip metadata` writes one")
    with Path(path).open("rb") as file:
        yield from ((line, text) for line, text in enumerate(file, 1) if text.strip())


def parse_line(text: bytes) -> Sample:
    """Parse one line; a ValueError, without file or line number, if it is not as the format says."""
    try:
        fields = json.loads(text.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error.msg} at character {error.pos + 1}; one whole object a line") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, numbers of thousands of digits, absurdly deep nesting
        raise ValueError(f"not valid JSON in UTF-8: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError('not a JSON object such as {"image_path": "a.png", "label": 0, "class_name": "screw"}')
    label, split = fields.get("label"), fields.get("split", "test")
    # In Python 1 == 1.0 == True, so this takes all spellings.
    if not isinstance(label, int | float) or label not in (0, 1):
        raise ValueError(f'"label" must be 0 (normal) or 1 (anomalous), but is {_shown(fields, "label")}')
    if split not in ("train", "test"):
        raise ValueError(f'"split" must be "train" or "test", but is {_shown(fields, "split")}')
    class_name = _text(fields, "class_name")
    if not class_name.isprintable():
        raise ValueError(f'"class_name" must be printable text, but is {_shown(fields, "class_name")}')
    mask_path = _text(fields, "mask_path") if fields.get("mask_path") not in (None, "") else None
    return Sample(_text(fields, "image_path"), int(label), class_name, mask_path, split)


class RootFolder:
    """Finds the files that a metadata file names, inside the root of its data set and nowhere else."""

    def __init__(self, root: str | Path) -> None:
        if not Path(root).is_dir():
            raise FileNotFoundError(f"no folder {root}: root must be the folder that the metadata's paths are relative to")
        self.root, self._real_root = str(root), os.path.realpath(root)

    def locate(self, path: str) -> str:
        """Path of a regular file in the root, from its relative path; a ValueError if a symbolic link leads out of it, too."""
        if os.path.isabs(path):  # noqa: PTH117
            raise ValueError(f"{path} is absolute: paths must be relative to the root {self.root}")
        located = os.path.join(self.root, path)  # noqa: PTH118  (plain strings: of 100,000 lines pathlib takes half a minute)
        try:
            real = os.path.realpath(located, strict=True)
        except (OSError, ValueError) as error:  # ValueError: null bytes and the like
            raise ValueError(f"there is no file {path!r} in the root {self.root}") from error
        if os.path.commonpath([self._real_root, real]) != self._real_root:
            raise ValueError(f"{path} leaves the root {self.root}: move the file into it, or give another root")
        if not os.path.isfile(real):  # noqa: PTH113
            raise ValueError(f"{path} in the root {self.root} is not a file")
        return located


def _text(fields: dict[str, Any], key: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f'"{key}" must be text, but is {_shown(fields, key)}')
    return value


def _shown(fields: dict[str, Any], key: str) -> str:
    """A field as an error message shows it: shortened, as a line may be megabytes long."""
    return reprlib.repr(fields[key]) if key in fields else "missing"


def _relative(path: str, root: str | Path) -> str:
    # Resolved, because anomalib resolves the roots of some of its data sets and not of others.
    try:
        return Path(path).resolve().relative_to(Path(root).resolve()).as_posix()
    except ValueError as error:
        raise ValueError(f"{path} is not inside the root {root}: give a root that all images are in") from error
