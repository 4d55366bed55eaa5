"""Guards against testing on what was learned from."""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from anomalib.data import AnomalibDataModule

from anomalib_dpclip.method.class_names import classes_of
from anomalib_dpclip.method.data_sets import data_set_key

logger = logging.getLogger(__name__)


def require_disjoint(auxiliary: pd.DataFrame, target: AnomalibDataModule | None) -> None:
    """Make sure that no image is both learned from and tested on, under the same path or as a copy.

    Args:
        auxiliary: Samples to learn from, with ``image_path``.
        target: Data module whose validation and test images must be others.

    Raises:
        ValueError: Names the image in both places.
    """
    tested: list[str] = []
    for split in ("test_data", "val_data"):
        samples = getattr(getattr(target, split, None), "samples", None)
        tested += [] if samples is None else list(samples.image_path)
    learned_by_path = {Path(path).resolve(): path for path in auxiliary.image_path}
    learned_by_size = _by_size(auxiliary.image_path)
    for path in dict.fromkeys(tested):
        twin = learned_by_path.get(Path(path).resolve())
        # Equal contents need equal sizes: hardly any file has to be read.
        candidates = [] if twin else learned_by_size.get(Path(path).stat().st_size, [])
        if candidates:
            digest = _digest(path)
            twin = next((other for other in candidates if _digest(other) == digest), None)
        if twin:
            raise ValueError(
                f"{path} is to be tested on and, as {twin}, learned from: results on it would mean nothing. Choose another "
                f"--model.auxiliary or --data"
            )


def warn_if_learned_from(learned_from: Sequence[str], target: AnomalibDataModule) -> None:
    """Warn where adapters have learned from the very class of the data set that they are tested on."""
    tested = classes_of(target)
    for source in learned_from:
        data_set, _, class_name = source.partition("/")
        if data_set_key(data_set) == data_set_key(target.name) and class_name in tested:
            logger.warning(
                "these adapters have learned from %s, which they are now tested on: this is no zero-shot result", source
            )
            return


def _by_size(paths: Iterable[str]) -> dict[int, list[str]]:
    sizes: dict[int, list[str]] = {}
    for path in paths:
        sizes.setdefault(Path(path).stat().st_size, []).append(path)
    return sizes


def _digest(path: str) -> bytes:
    return hashlib.sha256(Path(path).read_bytes()).digest()
