"""The frozen CLIP: the only file that touches open_clip. Tokens leave it batch-first, ``(B, L, C)``.

open_clip is imported inside functions: it takes a second, and whoever only lists anomalib's models need not wait for it.
"""

import hashlib
import logging
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from anomalib_dpclip.downloads import network_timeout, require_hub
from anomalib_dpclip.safe_load import load_plain
from anomalib_dpclip.self_attention import self_attention

if TYPE_CHECKING:
    from open_clip import CLIP

logger = logging.getLogger(__name__)

MINI = "mini"
"""Name of the small CLIP that comes with the package."""

RANDOM = "random"
"""Value of ``pretrained`` that leaves a backbone untrained: for speed measurements only."""

DEFAULT_IMAGE_SIZE = 518
"""The method's image size, in pixels; other patch sizes than 14 use the nearest multiple."""


class VisionTower(nn.Module):
    """A frozen open_clip vision transformer, layer by layer.

    It never learns: no parameter takes a gradient, and `train` leaves it in evaluation mode.

    Args:
        visual: ``clip.visual`` of an open_clip CLIP with a native vision transformer.

    Raises:
        ValueError: If the tower is not a native open_clip vision transformer.
    """

    def __init__(self, visual: Any) -> None:
        super().__init__()
        parts = ("conv1", "class_embedding", "transformer", "ln_post", "proj")
        # A tower that pools by attention normalises after it: its tokens have no place in the joint space.
        native = all(hasattr(visual, name) for name in parts) and getattr(visual, "attn_pool", None) is None
        if not native or not hasattr(visual.transformer, "resblocks"):
            raise ValueError(
                f"backbone must have a native open_clip vision transformer (such as ViT-L-14-336), not a "
                f"{type(visual).__name__}"
            )
        self.visual: Any = visual.requires_grad_(False).eval()
        self.depth = len(visual.transformer.resblocks)
        self.width = int(visual.conv1.out_channels)
        self.embed_dim = int(visual.proj.shape[1])
        self.patch_size = int(visual.conv1.kernel_size[0])
        height, width = visual.image_size if isinstance(visual.image_size, tuple) else [visual.image_size] * 2
        self.image_size = (int(height), int(width))
        self.grid = (self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size)
        self.eval()

    def train(self, mode: bool = True) -> "VisionTower":
        """Stay in evaluation mode."""
        del mode
        return super().train(False)

    def embed(self, images: Tensor) -> Tensor:
        """Class token and patch tokens ``(B, 1 + L, C)`` of normalised images ``(B, 3, H, W)``, before the first layer."""
        visual = self.visual
        images = images.to(visual.conv1.weight.dtype)  # `--trainer.precision 16-true` halves the weights
        patches = visual.conv1(images).flatten(2).transpose(1, 2)
        class_token = visual.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
        tokens = torch.cat([class_token, patches], dim=1) + visual.positional_embedding.to(patches.dtype)
        return visual.ln_pre(tokens)

    def layer(self, index: int, tokens: Tensor) -> Tensor:
        """Run transformer layer ``index`` (0-based) on tokens ``(B, 1 + L, C)``."""
        block = self.visual.transformer.resblocks[index]
        # Not `type(...) is`: torch's exporter runs subclasses. What is none is a variant of open_clip's own, batch-first.
        if not isinstance(block.attn, nn.MultiheadAttention):
            return block(tokens)
        tokens = tokens + block.ls_1(self_attention(block.attn, block.ln_1(tokens)))
        return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))

    def final_norm(self, tokens: Tensor) -> Tensor:
        """The tower's ``ln_post`` on tokens ``(B, L, C)``."""
        return self.visual.ln_post(tokens)


class TextTower:
    """The frozen text tower on the CPU. Not a module: it is never trained, moved, saved or exported.

    Args:
        clip: The open_clip CLIP it comes from.
        tokenizer: Sentences to token ids ``(N, context_length)``.
    """

    def __init__(self, clip: "CLIP", tokenizer: Callable[[list[str]], Tensor]) -> None:
        self.clip = clip.requires_grad_(False).eval()
        self.tokenizer = tokenizer

    @torch.no_grad()
    def __call__(self, sentences: list[str]) -> Tensor:
        """Embed sentences as ``(N, E)``."""
        return self.clip.encode_text(self.tokenizer(sentences)).float()


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
    import open_clip

    if backbone == MINI:
        from anomalib_dpclip.mini_clip import MINI_IMAGE_SIZE, MiniTokenizer, build_mini_clip, load_mini_clip

        if quick_gelu:
            raise ValueError("quick_gelu=True does not fit backbone='mini', which was trained with GELU")
        if pretrained not in {"openai", RANDOM}:  # the first is the default of the other backbones
            raise ValueError(f"pretrained={pretrained!r} does not fit backbone='mini', which comes with its own weights")
        clip = build_mini_clip() if pretrained == RANDOM else load_mini_clip()
        if image_size not in {None, MINI_IMAGE_SIZE}:
            clip = _resized(clip, _checked_image_size(image_size, clip.visual.conv1.kernel_size[0]))
        return clip.requires_grad_(False).eval(), TextTower(clip, MiniTokenizer())

    config = open_clip.get_model_config(backbone)
    if config is None:
        raise ValueError(
            f"unknown backbone {backbone!r}: it must be 'mini' or an open_clip model such as 'ViT-L-14-336' "
            f"(all names: open_clip.list_models())"
        )
    if not config.get("vision_cfg", {}).get("patch_size") or "timm_model_name" in config["vision_cfg"]:
        raise ValueError(f"backbone {backbone!r} has no native open_clip vision transformer; try 'ViT-L-14-336'")
    size = _checked_image_size(image_size, config["vision_cfg"]["patch_size"])
    state = None if pretrained == RANDOM else _read_state_dict(backbone, pretrained)
    # The configurations of some OpenAI models ask for QuickGELU themselves; the argument alone decides here.
    config = {**config, "quick_gelu": quick_gelu, "vision_cfg": {**config["vision_cfg"], "image_size": size}}
    custom_text = config.pop("custom_text", False) or "hf_model_name" in config.get("text_cfg", {})
    if custom_text:
        raise ValueError(f"backbone {backbone!r} has a text tower of another kind than CLIP's; try 'ViT-L-14-336'")
    from open_clip.model import CLIP

    clip = CLIP(**config).float()
    if state is None:
        logger.warning("pretrained='random': the CLIP backbone is untrained, its predictions mean nothing")
    else:
        _load_state_dict(clip, state, backbone, pretrained)
    return clip.requires_grad_(False).eval(), TextTower(clip, open_clip.get_tokenizer(backbone))


def fingerprint(clip: "CLIP") -> str:
    """Identify a CLIP's weights and activation, whatever its image size: the hash of a sample of every tensor.

    Adapters only fit the backbone they were trained on. The positional embedding of the vision tower is left out, since it
    is interpolated to the image size.
    """
    digest = hashlib.sha256()
    digest.update(type(clip.visual.transformer.resblocks[0].mlp.gelu).__name__.encode())
    for name, tensor in sorted(clip.state_dict().items()):
        if name == "visual.positional_embedding":
            continue
        flat = tensor.detach().float().flatten().cpu()
        digest.update(name.encode())
        digest.update(flat[:: max(1, flat.numel() // 256)].contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


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


def _read_state_dict(backbone: str, pretrained: str) -> dict[str, Tensor]:
    """Weights from a local file, else from an open_clip tag."""
    path = Path(pretrained).expanduser()
    if path.is_file():
        return _read_file(path)
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg, list_pretrained_tags_by_model

    if path.suffix or path.parent != Path():
        raise FileNotFoundError(f"pretrained={pretrained!r}: there is no such file of CLIP weights")
    tag = get_pretrained_cfg(backbone, pretrained)
    if not tag:
        tags = ", ".join(list_pretrained_tags_by_model(backbone)) or "none"
        raise ValueError(f"pretrained={pretrained!r} is neither a file nor a tag of {backbone} (its tags: {tags})")
    try:
        if "hf_hub" in tag:
            require_hub(tag["hf_hub"].rpartition("/")[0])
        with network_timeout():
            return _read_file(Path(download_pretrained(tag)))
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"the weights {pretrained!r} of {backbone} are not on this machine and could not be downloaded ({error}). "
            f"Fetch them elsewhere and pass the file: --model.pretrained /path/to/ViT-L-14-336px.pt (a TorchScript "
            f"archive or state dict, or .safetensors); or try without any download: --model.backbone mini"
        ) from error


def _read_file(path: Path) -> dict[str, Tensor]:
    """State dict of a safetensors file, a TorchScript archive or a plain (or training) checkpoint, never unpickling code."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    state: Any
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        elif _is_torchscript(path):
            state = torch.jit.load(path, map_location="cpu").state_dict()
        else:
            state = load_plain(path)
    except (zipfile.BadZipFile, OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ValueError(f"{path} is not a file of CLIP weights that can be read: {error}") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state dict of CLIP weights")
    state = {str(name): value for name, value in state.items()}
    return {name.removeprefix("module."): value for name, value in state.items()}


def _is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, as OpenAI's are, which `torch.load` refuses."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _load_state_dict(clip: "CLIP", state: dict[str, Tensor], backbone: str, source: str) -> None:
    """Load weights into a CLIP, interpolating the positional embedding (bicubic, antialiased, class token apart)."""
    from open_clip.model import resize_pos_embed

    metadata = {"input_resolution", "context_length", "vocab_size"}  # scalars in OpenAI's archives
    state = {name: value.float() for name, value in state.items() if name not in metadata}
    try:
        if "visual.positional_embedding" in state:
            resize_pos_embed(state, clip)
        clip.load_state_dict(state)
    except (RuntimeError, IndexError) as error:
        raise ValueError(f"the weights in {source!r} do not fit backbone {backbone!r}: {error}") from error
