"""What a backbone's images must look like: their statistics and the interpolation of their resize."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

Interpolation = Literal["bicubic", "bilinear"]

Channels = tuple[float, float, float]


class Preprocessing(NamedTuple):
    """How images were prepared when a backbone was trained. The method always resizes without a crop, which would hide defects.

    Attributes:
        mean: Of the three channels, subtracted from values in [0, 1].
        std: Standard deviations, divided by.
        interpolation: Of the resize.
    """

    mean: Channels
    std: Channels
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
        mean, std = (_channels(values.get(name, getattr(OPENAI, name)), name, source) for name in ("mean", "std"))
        if min(std) <= 0:
            raise ValueError(f"{source}: std must be positive, not {list(std)}")
        interpolation = values.get("interpolation", OPENAI.interpolation)
        if interpolation not in get_args(Interpolation):
            known = ", ".join(get_args(Interpolation))
            raise ValueError(f"{source}: interpolation must be one of {known}, not {interpolation!r}")
        return cls(mean, std, interpolation)


def _channels(values: Any, name: str, source: str) -> Channels:
    numbers = isinstance(values, (list, tuple)) and all(isinstance(value, (int, float)) for value in values)
    if not numbers or len(values) != 3 or not all(-1e3 < value < 1e3 for value in values):
        raise ValueError(f"{source}: {name} must be three numbers, one a channel, not {values!r}")
    red, green, blue = map(float, values)
    return red, green, blue


# As open_clip.constants has them; importing open_clip for six numbers would cost a second.
OPENAI = Preprocessing((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
"""Of OpenAI's CLIP, and of most that followed it."""
