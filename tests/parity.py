"""Numbers measured by running the published implementation at a small size, and the small CLIP they were measured on."""

import json
from pathlib import Path

import torch
from safetensors import safe_open


class Parity:
    """The numbers, by name."""

    def __init__(self, path: Path) -> None:
        with safe_open(path, "pt") as file:
            self.meta = json.loads(file.metadata()["meta"])
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
        self.tensors = {name: t.float() if t.dtype == torch.float16 else t for name, t in tensors.items()}

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.tensors[name]

    def under(self, prefix: str) -> dict[str, torch.Tensor]:
        """Entries below a prefix, by the rest of their name."""
        return {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}

    def clip(self, *, quick_gelu: bool = False):
        """The CLIP the numbers belong to."""
        from open_clip.model import CLIP

        meta = self.meta
        clip = CLIP(
            embed_dim=meta["embed"],
            vision_cfg={name: meta[name] for name in ("image_size", "width", "layers")}
            | {"patch_size": meta["patch"], "head_width": meta["width"]},
            text_cfg=meta["text"],
            quick_gelu=quick_gelu,
        )
        state = {name: value.float() for name, value in self.under("clip/").items()}
        embedding = torch.zeros(meta["text"]["vocab_size"], meta["text"]["width"])
        embedding[state.pop("token_rows").long()] = state.pop("token_embedding.rows")
        clip.load_state_dict(state | {"token_embedding.weight": embedding})
        return clip.eval()

    def model(self, pooling: str = "tokens", *, quick_gelu: bool = False, activation: bool = False, **arguments):
        """DP-CLIP with the reference's adapters."""
        from anomalib_dpclip.method.torch_model import DPCLIPModel

        model = DPCLIPModel(
            self.clip(quick_gelu=quick_gelu),
            adapter_layers=self.meta["adapter_layers"],
            tap_layers=self.meta["taps"],
            adapter_weight=self.meta["adapter_weight"],
            projector_activation=activation,
            grn_pooling=pooling,
            **arguments,
        )
        missing, unexpected = model.load_state_dict(self.under("adapter/"), strict=False)
        assert not unexpected
        assert all(name.startswith("backbone.") or name == "anchors" for name in missing)
        return model.eval()


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest error over the largest value, as the reference's own agreement was stated."""
    return ((actual - expected).abs().max() / expected.abs().max()).item()
