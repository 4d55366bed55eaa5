"""Building a CLIP by name, with its weights and fitted to the image size.

open_clip is imported inside functions: it takes a second, and whoever only lists anomalib's models need not wait for it.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor, nn

from anomalib_dpclip.clip.text_tower import TextTower
from anomalib_dpclip.clip.weights import load_weights, read_weights

if TYPE_CHECKING:
    from open_clip import CLIP

logger = logging.getLogger(__name__)

Tokenizer: TypeAlias = Callable[[list[str]], Tensor]

MINI = "mini"
"""Name of the small CLIP that comes with the package."""

RANDOM = "random"
"""Value of ``pretrained`` that leaves a backbone untrained: for speed measurements only."""

DEFAULT_IMAGE_SIZE = 518
"""The method's image size, in pixels; other patch sizes than 14 use the nearest multiple."""


def load_clip(
    backbone: str = "ViT-L-14-336",
    pretrained: str = "openai",
    image_size: int | None = None,
    quick_gelu: bool = False,
) -> tuple["CLIP", TextTower]:
    """Build a CLIP once, with its weights and its positional embedding fitted to the image size.

    Args:
        backbone: An open_clip model with a native vision transformer, or ``"mini"``, the small one that comes with the
            package.
        pretrained: An open_clip tag such as ``"openai"`` (downloaded once), or a path to a file: a TorchScript archive or
            state dict (``.pt``, ``.pth``, ``.bin``) or ``.safetensors``. ``"random"`` leaves the weights untrained.
        image_size: Side of the square images in pixels, a multiple of the patch size.
        quick_gelu: Whether the towers use QuickGELU instead of GELU.

    Returns:
        The CLIP, frozen, and its text tower. Both share their modules; drop the CLIP's text side before training.

    Raises:
        ValueError: For an unknown backbone or tag, an image size that is not a multiple of the patch, or a file that is
            no CLIP of this architecture.
        FileNotFoundError: If the weights are neither on disk nor to be had from the network.
    """
    load = _load_mini if backbone == MINI else _load_open_clip
    clip, tokenizer = load(backbone, pretrained, image_size, quick_gelu)
    return clip.requires_grad_(False).eval(), TextTower(clip, tokenizer)


def load_text_tower(backbone: str, pretrained: str, image_size: int | None, quick_gelu: bool) -> TextTower:
    """The text tower of `load_clip` alone."""
    return load_clip(backbone, pretrained, image_size, quick_gelu)[1]


def _load_mini(backbone: str, pretrained: str, image_size: int | None, quick_gelu: bool) -> tuple["CLIP", Tokenizer]:
    from anomalib_dpclip.clip.mini_clip import MINI_IMAGE_SIZE, MiniTokenizer, build_mini_clip, load_mini_clip

    if quick_gelu:
        raise ValueError(f"quick_gelu=True does not fit backbone={backbone!r}, which was trained with GELU")
    if pretrained not in {"openai", RANDOM}:  # the first is the default of the other backbones
        raise ValueError(f"pretrained={pretrained!r} does not fit backbone={backbone!r}, which comes with its own weights")
    clip = build_mini_clip() if pretrained == RANDOM else load_mini_clip()
    if image_size not in {None, MINI_IMAGE_SIZE}:
        clip = _resized(clip, _checked_image_size(image_size, clip.visual.conv1.kernel_size[0]))
    return clip, MiniTokenizer()


def _load_open_clip(backbone: str, pretrained: str, image_size: int | None, quick_gelu: bool) -> tuple["CLIP", Tokenizer]:
    import open_clip
    from open_clip.model import CLIP

    config = _native_config(backbone)
    size = _checked_image_size(image_size, config["vision_cfg"]["patch_size"])
    state = None if pretrained == RANDOM else read_weights(backbone, pretrained)
    # The configurations of some OpenAI models ask for QuickGELU themselves; the argument alone decides here.
    config |= {"quick_gelu": quick_gelu, "vision_cfg": {**config["vision_cfg"], "image_size": size}}
    clip = CLIP(**config).float()
    if state is None:
        logger.warning("pretrained='random': the CLIP backbone is untrained, its predictions mean nothing")
    else:
        load_weights(clip, state, backbone, pretrained)
    return clip, open_clip.get_tokenizer(backbone)


def _native_config(backbone: str) -> dict[str, Any]:
    """open_clip's configuration of a model whose two towers are open_clip's own transformers."""
    import open_clip

    config = open_clip.get_model_config(backbone)
    if config is None:
        raise ValueError(
            f"unknown backbone {backbone!r}: it must be 'mini' or an open_clip model such as 'ViT-L-14-336' "
            f"(all names: open_clip.list_models())"
        )
    if not config.get("vision_cfg", {}).get("patch_size") or "timm_model_name" in config["vision_cfg"]:
        raise ValueError(f"backbone {backbone!r} has no native open_clip vision transformer; try 'ViT-L-14-336'")
    if config.pop("custom_text", False) or "hf_model_name" in config.get("text_cfg", {}):
        raise ValueError(f"backbone {backbone!r} has a text tower of another kind than CLIP's; try 'ViT-L-14-336'")
    return dict(config)


def _checked_image_size(image_size: int | None, patch_size: int) -> int:
    if image_size is None:
        return round(DEFAULT_IMAGE_SIZE / patch_size) * patch_size
    if image_size <= 0 or image_size % patch_size:
        below = max(1, image_size // patch_size) * patch_size
        raise ValueError(
            f"image_size={image_size} is not a multiple of the backbone's patch size {patch_size}; "
            f"try {below} or {below + patch_size}"
        )
    return image_size


def _resized(clip: "CLIP", image_size: int) -> "CLIP":
    """Fit a loaded CLIP to another image size."""
    from open_clip.model import resize_pos_embed

    visual: Any = clip.visual
    state = {"visual.positional_embedding": visual.positional_embedding.data}
    side = image_size // visual.conv1.kernel_size[0]
    visual.grid_size, visual.image_size = (side, side), (image_size, image_size)
    resize_pos_embed(state, clip)
    visual.positional_embedding = nn.Parameter(state["visual.positional_embedding"])
    return clip
