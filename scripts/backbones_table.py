"""The table behind `dpclip backbones`, made of open_clip's and timm's own tables: `python -m scripts.backbones_table`.

Importing open_clip and building its models takes a quarter of a minute, for which whoever looks up a name need not wait.
Nothing is downloaded. Run it after an update of open_clip; a test compares.
"""

import json
import re
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import open_clip
import torch
from open_clip.pretrained import list_pretrained_tags_by_model
from torch.overrides import TorchFunctionMode

from anomalib_dpclip.clip.command import TABLE, installed_models
from anomalib_dpclip.clip.loading import build_clip, default_image_size, refusal
from anomalib_dpclip.clip.mini_clip import build_mini_clip
from anomalib_dpclip.clip.pretraining import MINI, pretraining_of
from anomalib_dpclip.clip.towers import tower_of

LICENCES = {
    "openai": "mit",  # of the repository that publishes them
    "laion400m": "mit",  # open_clip's own
    "laion2b|datacomp_|commonpool_": "mit",
    "CLIPA": "apache-2.0",
    "EVA": "mit",
    "SigLIP": "apache-2.0",
    "PE-Core": "apache-2.0",
    "metaclip": "cc-by-nc-4.0",
    "dfn|MobileCLIP": "apple-amlr",
}
"""What the weights' publishers state, by a part of "backbone tag", in the hub's spelling; the last one that fits counts."""


def rows(names: list[str]) -> Iterator[dict[str, Any]]:
    """One row a backbone: size, patch, image size and pretrained weights, or why it is refused.

    Args:
        names: Backbones of open_clip, or ``"mini"``.
    """
    for name in names:
        if name == MINI:
            own = {"tag": "with the package", "licence": "apache-2.0", **_trained(MINI, "openai")}
            yield _row(name, build_mini_clip(), [own])
            continue
        config = open_clip.get_model_config(name)
        if reason := refusal(config):
            yield {"backbone": name, "refused": reason}
            continue
        with torch.device("meta"), _Uninitialised():  # without memory
            clip = build_clip(config)
        tags = list_pretrained_tags_by_model(name)
        yield _row(name, clip, [{"tag": tag, "licence": licence_of(name, tag), **_trained(name, tag)} for tag in tags])


class _Uninitialised(TorchFunctionMode):
    """Skips the random numbers of initialisation, which take most of the time of building without memory."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__name__", "") in {"normal_", "uniform_", "erfinv_", "clamp_", "mul_", "add_"}:
            return next(iter((*args, *kwargs.values())))  # the tensor, filled in place
        return function(*args, **kwargs)


def _row(name: str, clip: Any, tags: list[dict[str, Any]]) -> dict[str, Any]:
    tower = tower_of(clip.visual)
    return {
        "backbone": name,
        "refused": None,
        "vision_parameters": _size(clip.visual),
        "parameters": _size(clip),
        "patch": tower.patch_size,
        "image_size": tower.image_size[0] if name == MINI else default_image_size(tower.patch_size),
        "pretrained": tags,
    }


def _size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _trained(name: str, tag: str) -> dict[str, Any]:
    trained = pretraining_of(name, tag)
    return {**trained.preprocessing.as_dict(), "quick_gelu": trained.quick_gelu}


def licence_of(name: str, tag: str) -> str | None:
    """Licence of weights as their publishers state it; ``None`` if it is not known here.

    Example:
        >>> licence_of("ViT-L-14-336", "openai"), licence_of("ViT-H-14", "dfn5b"), licence_of("ViT-X", "new")
        ('mit', 'apple-amlr', None)
    """
    stated = [licence for part, licence in LICENCES.items() if re.search(part, f"{name} {tag}")]
    return stated[-1] if stated else None


def page() -> str:
    """The table, a line a backbone."""
    own = installed_models()  # whoever runs it may have added some
    names = [MINI, *(name for name in open_clip.list_models() if name in own)]
    lines = ",\n".join(json.dumps(row) for row in rows(names))
    return f'{{"open_clip": "{version("open_clip_torch")}", "rows": [\n{lines}\n]}}\n'


if __name__ == "__main__":
    TABLE.write_text(page(), encoding="utf-8")
