"""Arguments of DPCLIP for tests, which name those of a group without their group."""

from dataclasses import fields
from typing import Any

from anomalib_dpclip.model.arguments import GROUPS

RENAMED = {"memory_tokens": ("memory", "tokens"), "export_classes": ("export", "classes")}
_FLAT = {"image_size", "weights"}
_GROUP_OF = {item.name: group for group, kind in GROUPS.items() for item in fields(kind) if item.name not in _FLAT}


def grouped(**arguments: Any) -> dict[str, Any]:
    """Arguments with those of a group in it."""
    found: dict[str, Any] = {}
    for name, value in arguments.items():
        group, inner = RENAMED.get(name, (_GROUP_OF.get(name), name))
        if group is None or name in GROUPS:
            found[name] = value
        elif value is not None:
            found.setdefault(group, {})[inner] = str(value) if name == "ignore" else value
    return found


def make_dpclip(**arguments: Any) -> Any:
    """A DPCLIP of such arguments."""
    from anomalib_dpclip import DPCLIP

    return DPCLIP(**grouped(**arguments))
