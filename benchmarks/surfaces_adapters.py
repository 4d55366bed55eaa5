"""Adapters that have learned from procedural surfaces, as ``configs/quickstart.yaml`` says."""

from collections.abc import Sequence
from pathlib import Path

from anomalib.engine import Engine

from anomalib_dpclip import DPCLIP, Surfaces, save_adapters
from anomalib_dpclip.model.arguments import Architecture, Training


def learn_surfaces(path: Path, root: Path, seed: int, held_out: Sequence[str] = ()) -> Path:
    """Train adapters.

    Args:
        path: File to write.
        root: Folder of the surfaces; what is missing is drawn.
        seed: Of the training.
        held_out: Categories of the auxiliary materials that are not learned from.

    Returns:
        The file.
    """
    categories = [category for category in Surfaces.auxiliary_categories if category not in held_out]
    model = DPCLIP(
        backbone="mini",
        batch_size=8,
        auxiliary=[f"Surfaces/{category}" for category in categories] if held_out else "Surfaces",
        training=Training(
            learning_rate=2e-3,
            temperature="backbone",
            auxiliary_root=[str(root)] * len(categories) if held_out else str(root),
        ),
        architecture=Architecture(detection="class_token"),
        seed=seed,
        visualizer=False,
    )
    engine = Engine(max_epochs=6, limit_val_batches=0, logger=False, enable_progress_bar=False, default_root_dir=path.parent)
    engine.fit(model=model)
    save_adapters(model, path)
    return path
