"""Building a CLIP by name, with its weights and fitted to the image size.

open_clip is imported inside functions, for it takes seconds. Its own `create_model` does not read TorchScript archives, nor in
2.24 safetensors; in 2.x it ignores the image size of ``openai``, and in 3.x calls a model random that is loaded afterwards.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from anomalib_dpclip.clip.pretraining import MINI, RANDOM, pretraining_of, tell_assumptions
from anomalib_dpclip.clip.text_tower import TextTower, Tokenizer, load_tokenizer
from anomalib_dpclip.clip.towers import resize_timm, tower_of
from anomalib_dpclip.clip.weights import load_weights, read_weights

logger = logging.getLogger(__name__)

DEFAULT_IMAGE_SIZE = 518
"""The method's image size, in pixels; other patch sizes than 14 use the nearest multiple."""


def load_clip(
    backbone: str = "ViT-L-14-336",
    pretrained: str = "openai",
    image_size: int | None = None,
    quick_gelu: bool | None = None,
    pretrained_tag: str | None = None,
    tokenizer: str | None = None,
) -> tuple[Any, TextTower]:
    """Build a CLIP once, with its weights and its positional embedding fitted to the image size.

    Args:
        backbone: An open_clip model with a vision transformer, open_clip's own or timm's, or ``"mini"``, the small one that
            comes with the package.
        pretrained: An open_clip tag such as ``"openai"`` (downloaded once), or a path to a file: a TorchScript archive or
            state dict (``.pt``, ``.pth``, ``.bin``) or ``.safetensors``. ``"random"`` leaves the weights untrained.
        image_size: Side of the square images in pixels, a multiple of the patch size.
        quick_gelu: Whether the towers use QuickGELU instead of GELU. Default: see `pretraining_of`.
        pretrained_tag: See `pretraining_of`.
        tokenizer: Folder of the tokenizer, for backbones whose tokenizer is not part of open_clip.

    Returns:
        The open_clip model, frozen, and its text tower. Both share their modules; drop the CLIP's text side before training.

    Raises:
        ValueError: If a part of this does not exist, or does not fit another.
        FileNotFoundError: If weights or tokenizer are neither on disk nor to be had from the network.
    """
    activation = pretraining_of(backbone, pretrained, pretrained_tag).quick_gelu if quick_gelu is None else quick_gelu
    tell_assumptions(backbone, pretrained, pretrained_tag, quick_gelu)
    if backbone == MINI:
        clip, tokenize = _load_mini(pretrained, image_size, activation)
    else:
        clip, tokenize = _load_open_clip(backbone, pretrained, image_size, activation, tokenizer)
    return clip.requires_grad_(False).eval(), TextTower(clip, tokenize)


def load_text_tower(*arguments: Any) -> TextTower:
    """The text tower of `load_clip` alone, from its arguments."""
    return load_clip(*arguments)[1]


def _load_mini(pretrained: str, image_size: int | None, quick_gelu: bool) -> tuple[Any, Tokenizer]:
    from anomalib_dpclip.clip import mini_clip as mini

    if quick_gelu:
        raise ValueError(f"quick_gelu=True does not fit backbone={MINI!r}, which was trained with GELU")
    if pretrained not in {"openai", RANDOM}:  # the first is the default of the other backbones
        raise ValueError(f"pretrained={pretrained!r} does not fit backbone={MINI!r}, which comes with its own weights")
    size = _checked_image_size(image_size, mini.MINI_PATCH_SIZE, MINI)
    clip = mini.build_mini_clip(size) if pretrained == RANDOM else mini.load_mini_clip(image_size=size)
    return clip, mini.MiniTokenizer()


def _load_open_clip(
    backbone: str, pretrained: str, image_size: int | None, quick_gelu: bool, tokenizer: str | None
) -> tuple[Any, Tokenizer]:
    config = backbone_config(backbone)
    is_timm = "timm_model_name" in config["vision_cfg"]
    if is_timm and quick_gelu:
        raise ValueError(f"quick_gelu=True does not fit backbone={backbone!r}, whose vision tower has its own activation")
    # The tokenizer comes before the weights, which take longer. Of random ones only speed is measured, which needs no download.
    load = partial(load_tokenizer, backbone, config, tokenizer)
    tokenize: Tokenizer = partial(_load_and_call, load) if pretrained == RANDOM else load()
    size = None if is_timm else _checked_image_size(image_size, config["vision_cfg"]["patch_size"])
    state = None if pretrained == RANDOM else read_weights(backbone, pretrained)
    # The configurations of some OpenAI models ask for QuickGELU themselves; the argument alone decides here.
    clip = build_clip(config | {"quick_gelu": quick_gelu}, size)
    if state is None:
        logger.warning("pretrained='random': the CLIP backbone is untrained, its predictions mean nothing")
    else:
        load_weights(clip, state, backbone, pretrained)
    if is_timm:  # whose weights come in the size that they were trained in
        resize_timm(clip.visual, _checked_image_size(image_size, tower_of(clip.visual).patch_size))
    return clip, tokenize


def _load_and_call(load: Callable[[], Tokenizer], sentences: list[str]) -> Tensor:
    return load()(sentences)


def backbone_config(backbone: str) -> dict[str, Any]:
    """open_clip's configuration of a model that the method can stand on; a ValueError says why it cannot."""
    import open_clip

    config = open_clip.get_model_config(backbone)
    if config is None:
        raise ValueError(f"unknown backbone {backbone!r}: it must be 'mini' or an open_clip model (all: dpclip backbones)")
    if reason := refusal(config):
        raise ValueError(f"backbone {backbone!r} {reason}; try 'ViT-L-14-336' (all that fit: dpclip backbones)")
    return dict(config)


def refusal(config: Mapping[str, Any]) -> str | None:
    """Why a backbone is refused, None if it is accepted, by open_clip's configuration: nothing is built or downloaded."""
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
    module = model_entrypoint(name).__module__.rpartition(".")[2]
    if module in {"vision_transformer", "eva"} or name == "vit_base_mci_224":  # whose stem is convolutional in name only
        return None
    return f"is convolutional or hybrid (timm's {name}, {module}), not a plain vision transformer"


def build_clip(config: dict[str, Any], image_size: int | None = None) -> Any:
    """Build an accepted model of open_clip's configuration, randomly initialised, in fp32; the size is for its own towers."""
    from open_clip.model import CLIP, CustomTextCLIP

    vision = config["vision_cfg"] | ({} if image_size is None else {"image_size": image_size})
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    kind = CustomTextCLIP if config.get("custom_text") else CLIP
    return kind(**{name: value for name, value in config.items() if name != "custom_text"} | {"vision_cfg": vision}).float()


def default_image_size(patch_size: int, backbone: str = "") -> int:
    """The multiple of a patch size that is nearest to the method's image size; the mini CLIP has one of its own."""
    if backbone == MINI:
        from anomalib_dpclip.clip.mini_clip import MINI_IMAGE_SIZE

        return MINI_IMAGE_SIZE
    return round(DEFAULT_IMAGE_SIZE / patch_size) * patch_size


def _checked_image_size(image_size: int | None, patch_size: int, backbone: str = "") -> int:
    if image_size is None:
        return default_image_size(patch_size, backbone)
    if image_size <= 0 or image_size % patch_size:
        below = max(1, image_size // patch_size) * patch_size
        near = f"{below} or {below + patch_size}"
        raise ValueError(f"image_size={image_size} is not a multiple of the backbone's patch size {patch_size}; try {near}")
    return image_size
