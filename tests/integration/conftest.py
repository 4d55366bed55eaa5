"""Every integration test is slow."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def learned_bricks(make_model, engine_in, surfaces_root, tmp_path_factory):
    """Adapters that have learned a little from bricks, with the thresholds of those, industrial ones."""
    from anomalib_dpclip import Surfaces, save_adapters

    folder = tmp_path_factory.mktemp("learned")
    model = make_model(learning_rate=5e-4, batch_size=3)
    engine = engine_in(folder, max_epochs=1)
    engine.fit(model, datamodule=Surfaces(root=surfaces_root, category="weave", val_split_mode="none"))
    return save_adapters(model, folder / "adapters.safetensors")


@pytest.fixture(scope="session")
def drawn_surfaces(surfaces_root):
    """The material of the quickstart and those that it learns from, drawn once for all pages."""
    from anomalib_dpclip import Surfaces

    for category in (*Surfaces.auxiliary_categories, "weave"):
        Surfaces(root=surfaces_root, category=category).prepare_data()
    return surfaces_root
