"""What a model knows of the target beforehand: results are only comparable among models that know as much."""

import re
from typing import Any

from anomalib import LearningType
from anomalib.data import AnomalibDataModule
from anomalib.models import AnomalibModule

NOTHING = "nothing"
LOT = "the unlabelled lot"
ALL_NORMAL = "all normal photos"


def knowledge_of(model: AnomalibModule, references: int | str | None = None) -> str:
    """What a model that has been tested knew of its target: normal photos, the other images tested, or nothing.

    Args:
        model: Any of anomalib's; by its learning type it has seen all normal training images, some, or none.
        references: How many it was shown, or ``"all"``; ``None`` where the model says so itself.
    """
    kind = model.learning_type
    if references == "all" or (kind == LearningType.ONE_CLASS and not references):
        return ALL_NORMAL
    known = []
    if kind in {LearningType.ONE_CLASS, LearningType.FEW_SHOT}:
        named: Any = getattr(model, "references", model)  # DP-CLIP has them in a part of its own
        own = len(named.paths(None)) if getattr(named, "source", None) else getattr(named, "k_shot", 0)
        count = references if isinstance(references, int) else own
        known.append(f"{count or 'some'} normal {'photo' if count == 1 else 'photos'}")
    if kind != LearningType.ONE_CLASS and getattr(model, "lot", False):
        known.append(LOT)
    return " and ".join(known) or NOTHING


def thresholds_of(model: AnomalibModule, datamodule: AnomalibDataModule) -> tuple[str, float | None]:
    """What a model's thresholds were set on, in words, and the false-alarm rate that they guarantee, if they do."""
    calibration = getattr(model.post_processor, "calibration", None)  # DP-CLIP's, which knows
    basis = getattr(calibration, "threshold_basis", "") or "best F1 score of the validation images"
    splits = (getattr(getattr(datamodule, name, None), "samples", None) for name in ("val_data", "test_data"))
    validation, tested = (set() if samples is None else set(samples.image_path) for samples in splits)
    if validation and validation <= tested:
        basis += " (the validation images are those tested)"
    return basis, getattr(calibration, "guaranteed_rate", None)


def knowledge_order(knows: str) -> tuple[int, int]:
    """Where it comes in tables: from nothing, over few and more photos and the lot, to all photos.

    Example:
        >>> sorted([ALL_NORMAL, LOT, "16 normal photos", "4 normal photos", NOTHING], key=knowledge_order)
        ['nothing', '4 normal photos', '16 normal photos', 'the unlabelled lot', 'all normal photos']
    """
    photos = re.match(r"(\d+|some) normal photo", knows)
    count = int(photos[1]) if photos and photos[1].isdigit() else 0
    kinds = (knows == NOTHING, photos is not None and LOT not in knows, LOT in knows, knows == ALL_NORMAL)
    return kinds.index(True) if any(kinds) else len(kinds), count
