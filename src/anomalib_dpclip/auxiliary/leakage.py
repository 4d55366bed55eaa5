"""Guards against testing on what was learned from."""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from anomalib.data import AnomalibDataModule

from anomalib_dpclip.data_sets.class_names import classes_of
from anomalib_dpclip.data_sets.names import data_set_key

logger = logging.getLogger(__name__)


def require_disjoint(auxiliary: pd.DataFrame, target: AnomalibDataModule | None) -> None:
    """A ValueError, naming both, if a sample to learn from is a validation or test image, under the same path or as a copy."""
    twins = find_test_duplicate(list(auxiliary.image_path), target)
    if twins is not None:
        tested, learned = twins
        raise ValueError(
            f"{tested} is to be tested on and, as {learned}, learned from: results on it would mean nothing. Choose another "
            f"--model.auxiliary or --data"
        )


def require_untested(references: Sequence[str], tested: Sequence[str]) -> None:
    """A ValueError, naming both, if an image is to be tested or predicted by itself, under the same path or as a copy."""
    twins = find_duplicate(references, tested)
    if twins is not None:
        scored, reference = twins
        raise ValueError(
            f"{scored} is to be scored and, as {reference}, a photo of what the target should look like: it would be "
            f"compared with itself. Choose other photos with --model.few_shot_source, or other ones to score (a Folder without "
            f"normal_test_dir tests on some of its normal_dir)"
        )


def find_test_duplicate(known: Sequence[str], target: AnomalibDataModule | None) -> tuple[str, str] | None:
    """`find_duplicate` of the validation and test images of a data module that has been set up."""
    splits = [getattr(target, split, None) for split in ("test_data", "val_data")]
    samples = [split.samples for split in splits if getattr(split, "samples", None) is not None]
    return find_duplicate(known, [path for each in samples for path in each.image_path])


def find_duplicate(known: Sequence[str], tested: Sequence[str]) -> tuple[str, str] | None:
    """The first tested path whose image is among the known ones, or a copy of one, and its twin's; missing files count not."""
    known_by_path = {Path(path).resolve(): path for path in known}
    known_by_size = defaultdict(list)
    for path in known:
        known_by_size[_size_of(path)].append(path)
    for path in dict.fromkeys(tested):
        twin = known_by_path.get(Path(path).resolve())
        # Equal contents need equal sizes: hardly any file has to be read.
        size = _size_of(path)
        candidates = [] if twin or size is None else known_by_size.get(size, [])
        if candidates:
            digest = file_digest(path)
            twin = next((other for other in candidates if file_digest(other) == digest), None)
        if twin:
            return path, twin
    return None


def learned_and_tested(learned_from: Sequence[str], target: AnomalibDataModule) -> str | None:
    """The first source of adapters, such as ``"VisA/candle"``, that is a class of the data set that is to be tested on."""
    tested = classes_of(target)
    for source in learned_from:
        data_set, _, class_name = source.partition("/")
        if data_set_key(data_set) == data_set_key(target.name) and class_name in tested:
            return source
    return None


def warn_if_learned_from(learned_from: Sequence[str], target: AnomalibDataModule) -> None:
    """Warn where adapters have learned from the very class of the data set that they are tested on."""
    source = learned_and_tested(learned_from, target)
    if source is not None:
        logger.warning("these adapters have learned from %s, which they are now tested on: this is no zero-shot result", source)


def _size_of(path: str) -> int | None:
    return Path(path).stat().st_size if Path(path).is_file() else None


def file_digest(path: str) -> bytes:
    """SHA-256 of a file: copies have the same."""
    return hashlib.sha256(Path(path).read_bytes()).digest()
