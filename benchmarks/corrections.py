"""What a correction does on photographs: some good photos that were called anomalous join the memory of good photos.

    pip install '.[photos]'
    python -m benchmarks.corrections --folder tile

The folder has the layout of `configs/benchmark/photographs.yaml`. The memory is of photos in ``train``, which set thresholds;
those that are corrected are drawn from the false alarms in ``test/good``, and count neither before nor after.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from anomalib_dpclip import DPCLIP
from anomalib_dpclip.clip.feature_tower import EMBEDDED
from anomalib_dpclip.data.images import read_image
from anomalib_dpclip.data.photo_files import photo_files
from anomalib_dpclip.model.arguments import MemoryOptions
from anomalib_dpclip.scorers.references import image_tensor
from benchmarks.command import run


@torch.no_grad()
def alarms_of(model: DPCLIP, paths: list[str]) -> np.ndarray:
    """Which photos are called anomalous ``(N,)``."""
    return np.array([model(image_tensor(read_image(path))[None]).pred_label.item() for path in paths])


def corrections(folder: Path, photos: int = 16, corrected: int = 5, draws: int = 3) -> pd.DataFrame:
    """False alarms and finds before and after a correction, a row a draw.

    Args:
        folder: Folder of photographs.
        photos: Number of good photos in the memory.
        corrected: Number of false alarms that are corrected, at most.
        draws: Number of draws of both.
    """
    train, good, bad = (list(photo_files((folder / part).resolve())) for part in ("train", "test/good", "test/bad"))
    model = DPCLIP(backbone="mini", weights="clip", memory_backbone=EMBEDDED, memory=MemoryOptions(text_weight=0)).eval()
    rows = []
    for draw in range(draws):
        generator = np.random.default_rng(draw)
        model.set_references([str(path) for path in generator.permutation(train)[:photos]])
        alarms, finds = alarms_of(model, good), alarms_of(model, bad)
        mended = generator.permutation(np.flatnonzero(alarms))[:corrected]
        model.add_good_images([str(good[number]) for number in mended])
        others = np.delete(alarms, mended)
        left, found = np.delete(alarms_of(model, good), mended), alarms_of(model, bad)
        rows.append(
            {
                "set": folder.name,
                "draw": draw + 1,
                "corrected": len(mended),
                "other false alarms": f"{others.sum()} of {len(others)}",
                "of them after": int(left.sum()),
                "finds": f"{finds.sum()} of {len(finds)}",
                "finds after": int(found.sum()),
            }
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    run(corrections)
