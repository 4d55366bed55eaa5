"""Good photos that are given on the page: the ones that count, in the order of a folder's, and what to say of the others."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from anomalib_dpclip.auxiliary.leakage import file_digest
from anomalib_dpclip.data.images import photo_size
from anomalib_dpclip.scorers.memory_fit import SCORED_IMAGES
from anomalib_dpclip.scorers.references import drop_duplicates, is_squeezed, shuffled

MAX_PHOTOS = SCORED_IMAGES
"""That the page takes: more would not set its thresholds, and looking at one takes as long as judging three."""


class GoodPhotos(NamedTuple):
    """Different photos in the order in which they are remembered, their digests, and lines on those not taken as they are."""

    paths: list[str]
    digests: tuple[bytes, ...]
    remarks: list[str]


def good_photos(paths: Sequence[str], seed: int, judged: str | None = None) -> GoodPhotos:
    """What ``--model.few_shot_source`` makes of a folder of these photos, which the page has each in a folder of its own.

    `judged` is the photo that they are compared with, if there is one already: a ValueError if it is one of them.
    """
    found = drop_duplicates(sorted(paths, key=lambda path: Path(path).name))
    if len(found) > MAX_PHOTOS:
        raise ValueError(f"{len(found)} good photos are more than the {MAX_PHOTOS} that the page takes: choose different ones")
    remarks = []
    if len(found) < len(paths):
        remarks.append(f"{len(paths)} good photos were given, {len(found)} of them different: copies count once.")
    if judged is not None:
        if twin := found.get(file_digest(judged)):
            raise ValueError(
                f"{judged} is the photo to judge and, as {twin}, a good photo: it would be compared with itself. Take it off "
                f"the good photos, or judge another one"
            )
        expected = photo_size(judged)
        sizes = [(Path(path).name, photo_size(path)) for path in found.values()]
        others = ["{} ({}x{})".format(name, *size) for name, size in sizes if is_squeezed(size, expected)]
        if others:
            told = f"Of another aspect than the photo to judge ({expected[0]}x{expected[1]}): {', '.join(others)}"
            remarks.append(f"{told}. Squeezed to the same shape they look unlike it: crop them.")
    order = dict(shuffled(list(found.items()), seed))
    return GoodPhotos(list(order.values()), tuple(order), remarks)
