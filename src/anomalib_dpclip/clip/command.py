"""The command `dpclip backbones`: what open_clip knows, and what of it the method can stand on."""

import json as json_format
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from anomalib_dpclip.clip.loading import build_clip, default_image_size
from anomalib_dpclip.clip.pretraining import MINI, pretraining_of
from anomalib_dpclip.clip.support import refusal
from anomalib_dpclip.clip.towers import tower_of

_LINE = "{:<32} {:>8} {:>8} {:>5} {:>5}  {}"


def backbones(json: bool = False, all: bool = False) -> None:  # noqa: A002  (the command's options)
    """List the backbones that fit, with their pretrained weights, size and licence.

    Everything comes from open_clip's and timm's own tables; nothing is downloaded. Licences are those that timm states; ``?``
    means that neither states one.

    Args:
        json: Print JSON, with the image statistics and activation of each tag, instead of a table.
        all: List those that are refused too, with the reason.
    """
    rows = (row for row in backbone_rows() if all or row["refused"] is None)
    if json:
        print(json_format.dumps(list(rows), indent=1))  # noqa: T201
        return
    print(_LINE.format("backbone", "vision", "total", "patch", "image", "pretrained (licence)"))  # noqa: T201
    for row in rows:
        if row["refused"]:
            print(_LINE.format(row["backbone"], "", "", "", "", f"refused: it {row['refused']}"))  # noqa: T201
            continue
        tags = ", ".join(f"{tag['tag']} ({tag['licence'] or '?'})" for tag in row["pretrained"]) or "none: give a file"
        vision, total = (f"{row[name] / 1e6:.1f}M" for name in ("vision_parameters", "parameters"))
        print(_LINE.format(row["backbone"], vision, total, row["patch"], row["image_size"], tags), flush=True)  # noqa: T201


def backbone_rows() -> Iterator[dict[str, Any]]:
    """One row a backbone: the mini, then open_clip's in its order; see `backbones`."""
    import open_clip

    from anomalib_dpclip.clip.mini_clip import build_mini_clip

    licences = _licences()
    yield _row(MINI, build_mini_clip(), [{"tag": "with the package", "licence": "apache-2.0", **_trained(MINI, "openai")}])
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        reason = refusal(config)
        if reason:
            yield {"backbone": name, "refused": reason}
            continue
        with torch.device("meta"), _Uninitialised():  # without memory
            clip = build_clip(config)
        yield _row(name, clip, _tags(name, licences))


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


def _tags(name: str, licences: dict[str, str]) -> list[dict[str, Any]]:
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    return [
        {
            "tag": tag,
            "licence": licences.get(get_pretrained_cfg(name, tag).get("hf_hub", "").rstrip("/")),
            **_trained(name, tag),
        }
        for tag in list_pretrained_tags_by_model(name)
    ]


def _trained(name: str, tag: str) -> dict[str, Any]:
    trained = pretraining_of(name, tag)
    return {**trained.preprocessing.as_dict(), "quick_gelu": trained.quick_gelu}


def _licences() -> dict[str, str]:
    """Licences of weights that open_clip gets from timm's repositories, by repository; open_clip itself states none."""
    import timm

    entries = {name: timm.get_pretrained_cfg(name) for name in timm.list_pretrained()}
    return {f"timm/{name}": entry.license for name, entry in entries.items() if entry and entry.license}
