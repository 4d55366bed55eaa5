"""How weights were trained, as open_clip's table of pretrained tags says: how images were prepared, and the activation."""

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

logger = logging.getLogger(__name__)

MINI = "mini"
"""Name of the small CLIP that comes with the package."""

RANDOM = "random"
"""Value of ``pretrained`` that leaves a backbone untrained: for speed measurements only."""

_OPENAI_S = (
    "OpenAI's weights run with GELU here, as in the published results; they were trained with QuickGELU: "
    "--model.clip.quick_gelu true"
)


Interpolation = Literal["bicubic", "bilinear"]


class Preprocessing(NamedTuple):
    """How images were prepared when a backbone was trained. The method always resizes without a crop, which would hide defects.

    Attributes:
        mean: Of the three channels, subtracted from values in [0, 1].
        std: Standard deviations, divided by.
        interpolation: Of the resize.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Interpolation = "bicubic"

    def as_dict(self) -> dict[str, Any]:
        """As plain data, for files."""
        return {"mean": list(self.mean), "std": list(self.std), "interpolation": self.interpolation}

    def replaced(self, mean: Sequence[float] | None, std: Sequence[float] | None) -> "Preprocessing":
        """With other statistics, where any are given. Raises as `from_dict`."""
        given = {name: list(values) for name, values in (("mean", mean), ("std", std)) if values is not None}
        return Preprocessing.from_dict(self.as_dict() | given, " and ".join(f"image_{name}" for name in given))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str) -> "Preprocessing":
        """From plain data as of `as_dict`; what is missing is OpenAI's, as in files from before this was kept.

        Raises:
            ValueError: If they are no statistics of three channels, or the interpolation is unknown; names the source.
        """
        known = OPENAI.as_dict() | dict(values)
        for name in ("mean", "std"):
            channels = known[name]
            numbers = isinstance(channels, (list, tuple)) and all(isinstance(value, (int, float)) for value in channels)
            if not numbers or len(channels) != 3 or not all(-1e3 < value < 1e3 for value in channels):
                raise ValueError(f"{source}: {name} must be three numbers, one a channel, not {channels!r}")
        if min(known["std"]) <= 0:
            raise ValueError(f"{source}: std must be positive, not {list(known['std'])}")
        if known["interpolation"] not in get_args(Interpolation):
            names = ", ".join(get_args(Interpolation))
            raise ValueError(f"{source}: interpolation must be one of {names}, not {known['interpolation']!r}")
        return cls(tuple(map(float, known["mean"])), tuple(map(float, known["std"])), known["interpolation"])


# As open_clip.constants has them; importing open_clip for six numbers would cost a second.
OPENAI = Preprocessing((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
"""Of OpenAI's CLIP, and of most that followed it."""


class Pretraining(NamedTuple):
    """How images were prepared, and whether the towers' activation is QuickGELU, not GELU."""

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
    found = _entries(backbone, pretrained, tag)
    return found.pop() if len(found) == 1 else Pretraining(OPENAI, _asks_for_quick_gelu(backbone))


@cache
def tell_assumptions(backbone: str, pretrained: str, tag: str | None, quick_gelu: bool | None) -> None:
    """Say, once, what `pretraining_of` takes weights for that do not say it, and that OpenAI's run with another activation.

    `quick_gelu` is the activation that was asked for, if any.
    """
    if backbone == MINI:
        return
    tags = _tags(backbone)
    is_unnamed = tag is None and _is_file(pretrained)
    own = quick_gelu is None and not _asks_for_quick_gelu(backbone)  # else the activation is as it was asked for
    is_openai = own and any(name.lower() == "openai" for name in (tags if is_unnamed else [tag or pretrained]))
    if is_unnamed and (is_openai or len(_entries(backbone, pretrained, tag)) > 1):
        logger.warning(
            "%s does not say how it was trained: taken for %s and OpenAI's image statistics. Name its tag with "
            "--model.clip.pretrained_tag (%s)%s",
            *(pretrained, "GELU" if own else "the given activation", ", ".join(tags), f". {_OPENAI_S}" if is_openai else ""),
        )
    elif is_openai:
        logger.info("%s: %s", backbone, _OPENAI_S)


def _entries(backbone: str, pretrained: str, tag: str | None) -> set[Pretraining]:
    """What open_clip's table says of weights: one entry where they are named, else what all tags of the backbone say."""
    from open_clip.pretrained import get_pretrained_cfg

    tags = _tags(backbone)
    if tag is not None and not get_pretrained_cfg(backbone, tag):
        raise ValueError(f"pretrained_tag={tag!r} is no tag of {backbone} (its tags: {', '.join(tags) or 'none'})")
    if tag is not None and not _is_file(pretrained) and pretrained not in {tag, RANDOM}:
        raise ValueError(f"pretrained_tag={tag!r} says what a local file holds, but pretrained={pretrained!r} is none")
    chosen = tag if _is_file(pretrained) else pretrained
    if chosen is not None and get_pretrained_cfg(backbone, chosen):
        tags = [chosen]
    found = set()
    for name in tags:
        entry, quick_gelu = get_pretrained_cfg(backbone, name), _asks_for_quick_gelu(backbone)
        if name.lower() != "openai":
            # Older versions of open_clip have no such entry: there the model's name, or the file's, says so.
            quick_gelu = bool(entry.get("quick_gelu", quick_gelu or "quickgelu" in entry.get("url", "")))
        found.add(Pretraining(Preprocessing.from_dict(entry, f"open_clip's entry for {backbone}, {name}"), quick_gelu))
    return found


def _asks_for_quick_gelu(backbone: str) -> bool:
    from open_clip import get_model_config

    return bool((get_model_config(backbone) or {}).get("quick_gelu", False))


def _is_file(pretrained: str) -> bool:
    return Path(pretrained).expanduser().is_file()


def _tags(backbone: str) -> list[str]:
    from open_clip.pretrained import list_pretrained_tags_by_model

    return list(list_pretrained_tags_by_model(backbone))
