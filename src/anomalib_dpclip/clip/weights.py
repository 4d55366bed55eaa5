"""CLIP's weights: from a local file or an open_clip tag, never unpickling code, into a CLIP of any image size."""

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anomalib_dpclip.files.downloads import network_timeout, require_hub
from anomalib_dpclip.files.safe_load import load_plain
from anomalib_dpclip.files.tensors import difference_of_tensors


def read_weights(backbone: str, pretrained: str) -> dict[str, Tensor]:
    """Weights from a local file, else from an open_clip tag."""
    path = Path(pretrained).expanduser()
    if path.is_file():
        return read_file(path)
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg, list_pretrained_tags_by_model

    tag = get_pretrained_cfg(backbone, pretrained)
    if not tag and path.is_dir():
        raise FileNotFoundError(f"pretrained={pretrained!r} is a folder: give the file of CLIP weights in it")
    if not tag and (path.suffix or path.parent != Path()):
        raise FileNotFoundError(f"pretrained={pretrained!r}: there is no such file of CLIP weights")
    if not tag:
        tags = ", ".join(list_pretrained_tags_by_model(backbone)) or "none"
        raise ValueError(f"pretrained={pretrained!r} is neither a file nor a tag of {backbone} (its tags: {tags})")
    try:
        if tag.get("hf_hub"):
            require_hub(tag["hf_hub"].rpartition("/")[0])
        with network_timeout():
            return read_file(Path(download_pretrained(tag)))
    except (OSError, RuntimeError) as error:
        origin = tag.get("url")
        repository, _, name = (origin or tag["hf_hub"]).rpartition("/")
        name = name or "open_clip_model.safetensors"
        origin = origin or f"{name} of {repository} from Hugging Face"
        raise FileNotFoundError(
            f"the weights {pretrained!r} of {backbone} are not on this machine and could not be downloaded "
            f"({str(error).partition(chr(10))[0]}). Fetch {origin} elsewhere and pass the file: --model.pretrained "
            f"/path/to/{name} --model.clip.pretrained_tag {pretrained}; or try without any download: --model.backbone mini"
        ) from error


def read_file(path: Path) -> dict[str, Tensor]:
    """State dict of a safetensors file, a TorchScript archive or a checkpoint; a ValueError if it is none, or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    state: Any
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        elif zipfile.is_zipfile(path) and any(name.endswith("/constants.pkl") for name in zipfile.ZipFile(path).namelist()):
            state = torch.jit.load(path, map_location="cpu").state_dict()  # OpenAI's, which `torch.load` refuses
        else:
            state = load_plain(path)
    except (zipfile.BadZipFile, OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ValueError(f"{path} is not a file of CLIP weights that can be read: {error}") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state dict of CLIP weights")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def load_weights(clip: Any, state: dict[str, Tensor], backbone: str, source: str) -> None:
    """Load weights into a CLIP, interpolating the positional embedding (bicubic, antialiased, class token apart)."""
    from open_clip.model import resize_pos_embed

    metadata = {"input_resolution", "context_length", "vocab_size"}  # scalars in OpenAI's archives
    state = {name: value.float() for name, value in state.items() if name not in metadata}
    try:
        state = _named_as_in(clip, state)
        if "visual.positional_embedding" in state:
            resize_pos_embed(state, clip)
        difference = difference_of_tensors(state, clip.state_dict())
    except (RuntimeError, IndexError) as error:
        difference = str(error)
    if difference:
        raise ValueError(f"{source} holds no CLIP weights of backbone {backbone!r}: {difference}")
    clip.load_state_dict(state)


def _named_as_in(clip: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in other namings, and of other ranks, that open_clip reads too: MobileCLIP's, and of text towers of their own."""
    from open_clip.model import convert_to_custom_text_state_dict

    try:
        from open_clip.convert import convert_state_dict
    except ImportError:  # older versions of open_clip have no models that need it
        pass
    else:
        state = convert_state_dict(clip, state)
    if hasattr(clip, "text"):
        state = convert_to_custom_text_state_dict(state)
    for name in ("logit_scale", "logit_bias"):
        own = getattr(clip, name, None)
        if own is not None and name in state and state[name].numel() == 1:
            state[name] = state[name].reshape(own.shape)
    return state


def fingerprint(clip: Any) -> str:
    """Identify a CLIP's weights and activation, which adapters were trained on: the hash of a sample of every tensor.

    The positional embedding of the vision tower is left out, since it is interpolated to the image size.
    """
    trunk = getattr(clip.visual, "trunk", None)
    if trunk is None:
        activation = type(clip.visual.transformer.resblocks[0].mlp.gelu).__name__
    else:
        activation = f"{trunk.blocks[0].mlp.act} {getattr(clip, 'text', clip).transformer.resblocks[0].mlp.gelu}"
    digest = hashlib.sha256(activation.encode())
    for name, tensor in sorted(clip.state_dict().items()):
        if name not in {"visual.positional_embedding", "visual.trunk.pos_embed"}:
            flat = tensor.detach().float().flatten().cpu()
            digest.update(name.encode())
            digest.update(flat[:: max(1, flat.numel() // 256)].contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
