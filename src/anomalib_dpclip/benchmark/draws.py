"""Draws of good images: which k of a training split a few-shot model is shown, the same for every model and seed."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from anomalib_dpclip.files.atomic_write import atomic_write


class Draws:
    """So many draws by chance, or those of a file, so that a paper's can be repeated.

    Args:
        source: How many, or a JSON file: of each ``"data set/category"`` a list of draws, each a list of images' paths relative
            to the data set's folder. Of a longer list the first k are shown.
    """

    def __init__(self, source: int | str | Path) -> None:
        self.used: dict[str, list[list[str]]] = {}
        self._file = Path(source) if isinstance(source, str | Path) else None
        self._given = {} if self._file is None else _read(self._file)
        self._number = source if isinstance(source, int) and not isinstance(source, bool) else 0
        if self._file is None and self._number < 1:
            raise ValueError(f"draws must be a number from 1, or a JSON file of draws, not {source!r}")

    def count(self, target: str) -> int:
        """How many draws a ``"data set/category"`` has; a ValueError if it is not in the file."""
        if self._file is None:
            return self._number
        if target not in self._given:
            raise ValueError(f"{self._file}: no draws of {target!r}; it has {', '.join(self._given)}")
        return len(self._given[target])

    def choose(self, target: str, images: Mapping[str, str], draw: int, k: int) -> tuple[str, ...]:
        """The k images of a draw of a ``"data set/category"``; those of a smaller k are among those of a larger one.

        ``images`` has the digest of each normal training image by its path relative to the data set's folder; copies count
        once. A ValueError says that there are too few, or that one of the file is not there.
        """
        if self._file is None:
            distinct = sorted({digest: name for name, digest in sorted(images.items(), reverse=True)}.values())
            order = [distinct[index] for index in np.random.RandomState(draw).permutation(len(distinct))]
            where = f"the training split of {target}"
        else:
            order, where = self._given[target][draw], f"draw {draw} of {target} in {self._file}"
            gone = [name for name in order[:k] if name not in images]
            if gone:
                raise ValueError(f"{where}: {gone[0]} is no normal training image")
        if len(order) < k:
            raise ValueError(f"k_shot {k} is more than the {len(order)} different normal images in {where}")
        chosen = self.used.setdefault(target, [])
        chosen += [[] for _ in range(draw + 1 - len(chosen))]
        chosen[draw] = max(chosen[draw], order[:k], key=len)
        return tuple(order[:k])

    def write(self, path: Path) -> None:
        """Write the draws that were chosen, to be given again; nothing where none was."""
        if self.used:
            with atomic_write(path) as unfinished:
                unfinished.write_text(json.dumps(self.used, indent=1), encoding="utf-8")


def _read(path: Path) -> dict[str, list[list[str]]]:
    if not path.is_file():
        raise FileNotFoundError(f"draws: there is no file {path}")
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        is_whole = all(isinstance(name, str) for draws in given.values() for draw in draws for name in draw)
    except (ValueError, AttributeError, TypeError):
        is_whole = False
    if not is_whole:
        raise ValueError(f'{path}: draws must be JSON such as {{"Surfaces/weave": [["weave/train/good/000.png"]]}}')
    return given
