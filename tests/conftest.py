"""Shared fixtures: the parity numbers, and the small CLIP they were measured on."""

import json
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from safetensors import safe_open

DATA = Path(__file__).parent / "data"


class Parity:
    """Numbers measured by running the published implementation at a small size on random weights."""

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
            vision_cfg={
                "image_size": meta["image_size"],
                "patch_size": meta["patch"],
                "width": meta["width"],
                "head_width": meta["width"],
                "layers": meta["layers"],
            },
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


@pytest.fixture(scope="session")
def parity() -> Parity:
    return Parity(DATA / "parity.safetensors")


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest error over the largest value, as the reference's own agreement was stated."""
    return ((actual - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture(autouse=True)
def _no_global_seed_is_left():
    """`seed_everything` sets one for the whole process, and models take it."""
    yield
    os.environ.pop("PL_GLOBAL_SEED", None)


@pytest.fixture(scope="session")
def surfaces_root(tmp_path_factory) -> Path:
    """Two procedural materials: brick to learn from, weave to test on."""
    from anomalib_dpclip import Surfaces

    root = tmp_path_factory.mktemp("surfaces")
    for category in ("brick", "weave"):
        Surfaces(root=root, category=category).prepare_data()
    return root


@pytest.fixture
def target(surfaces_root):
    """Data module of the material to test on, cut down to some images of each kind."""
    from anomalib_dpclip import Surfaces

    class FewSurfaces(Surfaces):
        def _setup(self, stage=None):
            super()._setup(stage)
            self.test_data.subsample(range(0, len(self.test_data), 10), inplace=True)

        @property
        def name(self):
            return "Surfaces"

    return FewSurfaces(root=surfaces_root, category="weave", eval_batch_size=8)


@pytest.fixture
def make_model(surfaces_root):
    """DPCLIP on the mini backbone, learning from a few bricks."""
    from anomalib_dpclip import DPCLIP

    def make(**arguments):
        defaults = {
            "backbone": "mini",
            "auxiliary": "Surfaces/brick",
            "auxiliary_root": str(surfaces_root),
            "shots": 8,
            "batch_size": 4,
            "learning_rate": 2e-3,
            "visualizer": False,
        }
        return DPCLIP(**defaults | arguments)

    return make


@pytest.fixture
def make_engine(tmp_path):
    """anomalib's engine, quiet and in a temporary folder."""
    from anomalib.engine import Engine

    def make(**arguments):
        defaults = {
            "accelerator": "cpu",
            "devices": 1,
            "max_epochs": 2,
            "default_root_dir": tmp_path / "results",
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "logger": False,
            "log_every_n_steps": 1,
        }
        return Engine(**defaults | arguments)

    return make
