"""Memory of the process with many large photos: to remember good ones, and to predict others.

    pip install '.[photos]'
    python -m benchmarks.many_photos

Photos are read one after another, and of more photos fewer tokens each are kept.
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from anomalib_dpclip.clip.feature_tower import EMBEDDED
from anomalib_dpclip.model.arguments import MemoryOptions
from anomalib_dpclip.model.lightning_model import DPCLIP
from benchmarks.command import run
from benchmarks.peak_memory import PeakMemory
from benchmarks.photos import Variant, make_photos, predict_photos


def many_photos(good: int = 500, predicted: int = 300) -> pd.DataFrame:
    """Seconds, and peak memory above what the process takes with one photo, of photos of 16 megapixels.

    Args:
        good: Number of photos that are remembered.
        predicted: Number of photos that are predicted after that.
    """
    with TemporaryDirectory() as folder:
        known = sorted(map(str, make_photos(Path(folder) / "good", large=True, count=good).iterdir()))
        root = make_photos(Path(folder) / "photos", large=True, count=predicted, seed=1)
        model = DPCLIP(
            backbone="mini", weights="clip", class_name="cloth", memory_backbone=EMBEDDED, memory=MemoryOptions(text_weight=0)
        )
        before = PeakMemory(None)
        model.set_references(known[:1])
        one, rows = before.mebibytes(), []
        peak, start = PeakMemory(None), time.perf_counter()
        model.set_references(known)
        rows.append(("remember", good, time.perf_counter() - start, peak.mebibytes() - one))
        peak, start = PeakMemory(None), time.perf_counter()
        predict_photos(model, root, Path(folder) / "out", Variant(large=True), workers=0)
        rows.append(("predict, with pictures", predicted, time.perf_counter() - start, peak.mebibytes() - one))
    return pd.DataFrame(
        [
            {"work": work, "photos": count, "seconds": round(seconds), "MiB above one photo": round(above)}
            for work, count, seconds, above in rows
        ]
    )


if __name__ == "__main__":
    run(many_photos)
