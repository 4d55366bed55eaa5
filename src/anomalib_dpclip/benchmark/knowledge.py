"""What a model knows of the target beforehand: results are only comparable among models that know as much."""

import re

from anomalib import LearningType
from anomalib.models import AnomalibModule

NOTHING = "nothing"
LOT = "the unlabelled lot"
ALL_NORMAL = "all normal photos"


def knowledge_of(model: AnomalibModule) -> str:
    """What a model that has been tested knew of its target: normal photos, the other images tested, or nothing.

    Args:
        model: Any of anomalib's. By its learning type it has learned from the normal training images, has been given some of
            them, or knows nothing.
    """
    if model.learning_type == LearningType.ONE_CLASS:
        return ALL_NORMAL
    known = [_photos(model)] if model.learning_type == LearningType.FEW_SHOT else []
    known += [LOT] if getattr(model, "lot", False) else []
    return " and ".join(known) or NOTHING


def _photos(model: AnomalibModule) -> str:
    memory = getattr(model.model, "memory", None)  # DP-CLIP's: of a folder the number of photos is known only when it is read
    count = int(getattr(memory, "photos", 0)) or getattr(model, "k_shot", 0)
    return f"{count or 'some'} normal {'photo' if count == 1 else 'photos'}"


def assumed_knowledge(model: str) -> str:
    """What a model of rows from before it was kept knew: at that time DP-CLIP nothing, and others had learned.

    Args:
        model: Its class.
    """
    return NOTHING if model == "DPCLIP" else ALL_NORMAL


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
