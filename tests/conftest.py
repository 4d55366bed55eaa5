"""Shared fixtures."""

import os
from functools import partial
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

from tests.arguments import make_dpclip
from tests.parity import Parity
from tests.paths import DATA


@pytest.fixture(scope="session")
def parity() -> Parity:
    return Parity(DATA / "parity.safetensors")


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


@pytest.fixture(scope="session")
def make_target(surfaces_root):
    """Data modules of the material to test on, cut down to some images of each kind."""
    from anomalib_dpclip import Surfaces

    class FewSurfaces(Surfaces):
        step = 10

        def _setup(self, stage=None):
            super()._setup(stage)
            self.test_data.subsample(range(0, len(self.test_data), self.step), inplace=True)

        @property
        def name(self):
            return "Surfaces"

    return partial(FewSurfaces, root=surfaces_root, category="weave", eval_batch_size=8)


@pytest.fixture
def target(make_target):
    return make_target()


@pytest.fixture(scope="session")
def make_model(surfaces_root):
    """DPCLIP on the mini backbone, learning from a few bricks."""

    def make(**arguments):
        defaults = {"backbone": "mini", "auxiliary": "Surfaces/brick", "auxiliary_root": str(surfaces_root), "shots": 8}
        return make_dpclip(**defaults | {"batch_size": 4, "learning_rate": 2e-3, "visualizer": False} | arguments)

    return make


@pytest.fixture(scope="session")
def engine_in():
    """anomalib's engine, quiet, with its results in a folder."""
    from anomalib.engine import Engine

    def make(folder, **arguments):
        defaults = {"accelerator": "cpu", "devices": 1, "max_epochs": 2, "default_root_dir": folder, "log_every_n_steps": 1}
        quiet = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "logger"), False)
        return Engine(**defaults | quiet | arguments)

    return make


@pytest.fixture
def make_engine(engine_in, tmp_path):
    """`engine_in` a temporary folder."""
    return partial(engine_in, tmp_path / "results")
