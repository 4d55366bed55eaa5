"""Which backbone is it: a short hash of a CLIP's weights and activation."""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from open_clip import CLIP


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
