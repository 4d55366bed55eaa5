"""Evaluation at full size: memory and time of the pixel metrics on 1,700 maps of 518 x 518."""

import time

import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from tqdm import trange

from anomalib_dpclip.metrics import PixelHistogram, aupro, auroc, average_precision, f1_max
from benchmarks.command import run
from benchmarks.peak_memory import PeakMemory


def evaluation(images: int = 1700, image_size: int = 518, batch_size: int = 16) -> pd.DataFrame:
    """Time, peak memory and state of the pixel metrics on made-up maps.

    Args:
        images: Number of maps.
        image_size: Side of a map.
        batch_size: Maps an update.

    Returns:
        One row.
    """
    rng = np.random.default_rng(0)
    blurred = ndimage.gaussian_filter(rng.random((batch_size, image_size, image_size)), (0, 12, 12))
    blurred = (blurred - blurred.min()) / np.ptp(blurred)
    masks = torch.from_numpy(np.stack([_peak_region(one) for one in blurred]))
    maps = torch.from_numpy(0.48 + 0.05 * ndimage.gaussian_filter(blurred + 0.1 * rng.random(blurred.shape), (0, 3, 3))).float()
    peak, histogram = PeakMemory(None), PixelHistogram()
    start = time.perf_counter()
    for done in trange(0, images, batch_size, desc="maps", leave=False):
        histogram.update(maps[: images - done], masks[: images - done])
    updated = time.perf_counter()
    counts = histogram.compute()
    metrics = {metric.__name__: round(metric(counts), 4) for metric in (auroc, average_precision, f1_max, aupro)}
    computed = time.perf_counter()
    state = sum(getattr(histogram, name).nbytes for name in ("normal", "anomalous", "region_share", "regions"))
    return pd.DataFrame(
        [
            {
                "maps": images,
                "side": image_size,
                "state MB": round(state / 1e6, 1),
                "peak MiB of the process": round(peak.mebibytes()),
                "ms a map": round(1000 * (updated - start) / images, 2),
                "seconds for the metrics": round(computed - updated, 2),
                **metrics,
            }
        ]
    )


def _peak_region(values: np.ndarray) -> np.ndarray:
    """One compact defect a map, around its highest value."""
    regions, _ = ndimage.label(values > values.max() - 0.15)
    return regions == regions.flat[values.argmax()]


if __name__ == "__main__":
    run(evaluation)
