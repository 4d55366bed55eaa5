"""How weights were trained, as open_clip's table of pretrained tags says: image statistics and activation."""

import logging
from functools import cache
from pathlib import Path
from typing import NamedTuple

from anomalib_dpclip.clip.preprocessing import OPENAI, Preprocessing

logger = logging.getLogger(__name__)

MINI = "mini"
"""Name of the small CLIP that comes with the package."""

RANDOM = "random"
"""Value of ``pretrained`` that leaves a backbone untrained: for speed measurements only."""


class Pretraining(NamedTuple):
    """What the model must know of its weights' training.

    Attributes:
        preprocessing: Of the images.
        quick_gelu: Whether the towers' activation is QuickGELU, not GELU.
    """

    preprocessing: Preprocessing
    quick_gelu: bool


def pretraining_of(backbone: str, pretrained: str, tag: str | None = None) -> Pretraining:
    """How the weights of a backbone were trained.

    OpenAI's are the exception: trained with QuickGELU, they run with GELU here, as in the published results. A backbone
    whose name asks for QuickGELU (``ViT-L-14-336-quickgelu``) gets it.

    Args:
        backbone: Name of an open_clip model, or ``"mini"``.
        pretrained: As in `load_clip`.
        tag: open_clip's name of the weights in a local file. Without it a file is taken for what all tags of the backbone
            have in common, else for weights like OpenAI's.

    Raises:
        ValueError: If the backbone has no such tag, or ``pretrained`` is another tag.
    """
    if backbone == MINI:
        if tag is not None:
            raise ValueError(f"pretrained_tag={tag!r} does not fit backbone={MINI!r}, which comes with its own weights")
        return Pretraining(OPENAI, quick_gelu=False)
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    tags = list_pretrained_tags_by_model(backbone)
    is_file = Path(pretrained).expanduser().is_file()
    if tag is not None and not get_pretrained_cfg(backbone, tag):
        raise ValueError(f"pretrained_tag={tag!r} is no tag of {backbone} (its tags: {', '.join(tags) or 'none'})")
    if tag is not None and not is_file and pretrained not in {tag, RANDOM}:
        raise ValueError(f"pretrained_tag={tag!r} says what a local file holds, but pretrained={pretrained!r} is none")
    chosen = tag if is_file else pretrained
    if chosen is not None and get_pretrained_cfg(backbone, chosen):
        found = _of_tag(backbone, chosen)
        if _is_openai(chosen) and not found.quick_gelu:
            _tell_openai_s_activation(backbone)
        return found
    known = {_of_tag(backbone, name) for name in tags}
    if len(known) == 1:
        return known.pop()
    usual = Pretraining(OPENAI, _asks_for_quick_gelu(backbone))
    if known and is_file:
        logger.warning(
            "%s does not say how it was trained: taken for %s and OpenAI's image statistics. The tags of %s differ: name "
            "its own with --model.clip.pretrained_tag (%s)",
            pretrained,
            "QuickGELU" if usual.quick_gelu else "GELU",
            backbone,
            ", ".join(tags),
        )
    return usual


def _of_tag(backbone: str, tag: str) -> Pretraining:
    from open_clip.pretrained import get_pretrained_cfg

    entry = get_pretrained_cfg(backbone, tag)
    preprocessing = Preprocessing.from_dict(entry, f"open_clip's entry for {backbone}, {tag}")
    asked_for = _asks_for_quick_gelu(backbone)
    if _is_openai(tag):
        return Pretraining(preprocessing, asked_for)
    # Older versions of open_clip have no such entry: there the model's name, or the file's, says so.
    return Pretraining(preprocessing, bool(entry.get("quick_gelu", asked_for or "quickgelu" in entry.get("url", ""))))


def _is_openai(tag: str) -> bool:
    return tag.lower() == "openai"


def _asks_for_quick_gelu(backbone: str) -> bool:
    from open_clip import get_model_config

    return bool((get_model_config(backbone) or {}).get("quick_gelu", False))


@cache
def _tell_openai_s_activation(backbone: str) -> None:
    """Once a backbone: the model is built more than once."""
    logger.info(
        "%s with OpenAI's weights runs with GELU, as in the published results; they were trained with QuickGELU: "
        "--model.clip.quick_gelu true",
        backbone,
    )
