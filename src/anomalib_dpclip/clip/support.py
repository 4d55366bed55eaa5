"""Which of open_clip's models the method can stand on, told from their configuration, without building or downloading one."""

from collections.abc import Mapping
from typing import Any

_VIT_MODULES = ("timm.models.vision_transformer", "timm.models.eva")

# Their stem is convolutional in name only, see `TimmTower`.
_VIT_NAMES = ("vit_base_mci_224",)


def refusal(config: Mapping[str, Any]) -> str | None:
    """Why a backbone is refused, None if it is accepted.

    Args:
        config: open_clip's configuration of the model.
    """
    vision, text = config.get("vision_cfg", {}), config.get("text_cfg", {})
    if "multimodal_cfg" in config:
        return "is a captioning model (CoCa), whose vision tower pools by attention queries"
    if text.get("hf_model_name"):
        return f"has a text tower from transformers ({text['hf_model_name']})"
    if isinstance(vision.get("layers"), (list, tuple)):
        return "is a ResNet, not a vision transformer"
    if vision.get("timm_model_name"):
        return _refusal_of_timm(vision["timm_model_name"])
    if not vision.get("patch_size") or vision.get("attentional_pool"):
        return "has no vision transformer that pools by token or average"
    return None


def _refusal_of_timm(name: str) -> str | None:
    from timm.models import is_model, model_entrypoint

    if not is_model(name):
        return f"needs timm's {name}, which the installed timm lacks: upgrade it (pip install --upgrade timm)"
    module = model_entrypoint(name).__module__
    if name in _VIT_NAMES:
        return None
    if module not in _VIT_MODULES:
        return f"is convolutional or hybrid (timm's {name}, {module.rpartition('.')[2]}), not a plain vision transformer"
    return None
