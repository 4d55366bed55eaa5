"""Which backbone is it: a short hash of a CLIP's weights and activation."""

import hashlib
from typing import Any

# Interpolated to the image size, and so no part of what a backbone is.
_POSITIONS = ("visual.positional_embedding", "visual.trunk.pos_embed")


def fingerprint(clip: Any) -> str:
    """Identify a CLIP's weights and activation, whatever its image size: the hash of a sample of every tensor.

    Adapters only fit the backbone they were trained on. The positional embedding of the vision tower is left out, since it
    is interpolated to the image size.
    """
    digest = hashlib.sha256()
    digest.update(_activation(clip).encode())
    for name, tensor in sorted(clip.state_dict().items()):
        if name in _POSITIONS:
            continue
        flat = tensor.detach().float().flatten().cpu()
        digest.update(name.encode())
        digest.update(flat[:: max(1, flat.numel() // 256)].contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _activation(clip: Any) -> str:
    trunk = getattr(clip.visual, "trunk", None)
    if trunk is None:
        return type(clip.visual.transformer.resblocks[0].mlp.gelu).__name__
    text = getattr(clip, "text", clip)
    return f"{trunk.blocks[0].mlp.act} {text.transformer.resblocks[0].mlp.gelu}"
