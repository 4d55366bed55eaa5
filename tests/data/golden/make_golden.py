"""Make the golden files: what this version of the package writes, and what its model answers, for all later versions to read.

    python tests/data/golden/make_golden.py

Run it once for each format version and commit the result. Files of earlier versions are never made again: that later
versions still read them is the point.
"""

import shutil
import tempfile
from pathlib import Path

import torch
from anomalib.engine import Engine
from safetensors.torch import save_file
from tests.arguments import make_dpclip

from anomalib_dpclip import DPCLIP, Surfaces, save_adapters
from anomalib_dpclip.adapter_files.adapter_file import FORMAT_VERSION

GOLDEN = Path(__file__).parent


def golden_images() -> torch.Tensor:
    """Two images ``(2, 3, 140, 140)`` that need no random numbers and no file: waves along and across."""
    waves = torch.sin(torch.arange(140, dtype=torch.float64) / 7)
    planes = torch.stack([waves[:, None] * waves, waves[:, None] + waves, waves[:, None] - waves])
    return torch.stack([planes, planes.flip(0)]).float()


def answers(model: DPCLIP) -> dict[str, torch.Tensor]:
    """What a model says of the golden images: features, and post-processed maps (thinned out) and scores."""
    images = golden_images()
    with torch.no_grad():
        taps, detection = model.model.features(images)
        prediction = model.eval()(images)
    return {
        "last_tap": taps[-1][:, ::10],
        "detection": detection,
        "anomaly_map": prediction.anomaly_map[:, ::14, ::14],
        "pred_score": prediction.pred_score,
        "pred_label": prediction.pred_label,
    }


def main() -> None:
    """Train one epoch on a few images and write adapters, checkpoint and answers."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        # Few adapters, so that the files are small.
        model = make_dpclip(
            backbone="mini",
            class_name="weave",
            auxiliary="Surfaces/brick",
            auxiliary_root=folder,
            shots=6,
            adapter_layers=[0],
            tap_layers=[3, 6],
            learning_rate=2e-3,
            visualizer=False,
        )
        engine = Engine(accelerator="cpu", devices=1, max_epochs=1, logger=False, default_root_dir=folder)
        engine.fit(model=model, datamodule=Surfaces(root=folder, category="weave"))
        shutil.copyfile(engine.best_model_path, GOLDEN / f"checkpoint-v{FORMAT_VERSION}.ckpt")
    save_adapters(model, GOLDEN / f"adapters-v{FORMAT_VERSION}.safetensors")
    expected = {name: value.contiguous() for name, value in answers(model).items()}
    save_file(expected, GOLDEN / f"answers-v{FORMAT_VERSION}.safetensors")


if __name__ == "__main__":
    main()
