"""Whether false-alarm rates are kept: thresholds of n normal images, on the others, 1,000 times over.

    python -m benchmarks.guarantee --adapters adapters.safetensors [--elpv METADATA.jsonl --elpv_root FOLDER]

Adapters are those of ``configs/quickstart.yaml``, by ``save_adapters``. The normal images are new ones of the targets of
Surfaces, drawn for this measurement, and those of ELPV where it is given (docs/own-data.md lists it).
"""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from anomalib_dpclip import DPCLIP, JSONLines
from anomalib_dpclip.data.surfaces.data_module import TARGET_MATERIALS
from anomalib_dpclip.data.surfaces.textures import COLORS, render_surface
from anomalib_dpclip.post_processing.calibration import Calibration
from anomalib_dpclip.post_processing.calibration_statistics import UNKNOWN_LABEL, ImageStatistics
from anomalib_dpclip.post_processing.conformal import false_alarm_threshold, images_needed, percent
from benchmarks.command import run

IMAGES = (20, 50, 100)
RATES = (0.01, 0.05, 0.10)
DRAWN = 500
"""Normal images of each material."""
SIDE = 140
GROUPS = 10
"""Groups of n images that each resample parts a source into, at most; each sets thresholds for all images outside of it."""


def guarantee(
    adapters: Path, elpv: Path | None = None, elpv_root: Path | None = None, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Set thresholds from n normal images of a source, and count the others that exceed them.

    Args:
        adapters: File of the adapters, of the mini backbone.
        elpv: List of ELPV in JSON lines.
        elpv_root: Folder that its paths are relative to.
        resamples: How often a source is parted by chance into groups of n images, for each n.
        seed: Of the images and the choices.

    Returns:
        One row a source and n: of each rate the mean share of false alarms over the resamples with its standard error, in
        percent, by the image's score and by any pixel; and how many images the rate takes, where n is less.
    """
    model = DPCLIP(backbone="mini", weights=adapters).eval()
    scale = model.post_processor.auxiliary_calibration
    sources = {material: _drawn(model, material, seed) for material in TARGET_MATERIALS}
    if elpv is not None:
        sources["ELPV"] = _elpv(model, elpv, elpv_root or elpv.parent)
    return pd.DataFrame(
        [
            {"source": source, "normal images": len(seen.map_max), "n": count, **_realised(seen, scale, count, resamples, seed)}
            for source, seen in sources.items()
            for count in IMAGES
        ]
    )


def _realised(seen: ImageStatistics, scale: Calibration, count: int, resamples: int, seed: int) -> dict[str, str]:
    """False alarms of every rate, at thresholds of so many images, whose scores are fused in the ranges of the adapters."""
    generator = torch.Generator().manual_seed(seed)
    alarms = torch.zeros(len(RATES), 2, resamples, dtype=torch.double)
    fused = scale.fused(seen)
    for resample in range(resamples):
        order = torch.randperm(len(fused), generator=generator)
        for column, scores in enumerate((fused[order], seen.map_max[order])):
            groups = scores.split(count)[: min(GROUPS, len(scores) // count)]
            for row, rate in enumerate(RATES):
                thresholds = torch.tensor([false_alarm_threshold(group, rate) for group in groups])
                # None of a group's own images counts: it has its rank among them.
                exceeding = (scores > thresholds[:, None]).sum(1) - torch.stack(
                    [(group > threshold).sum() for group, threshold in zip(groups, thresholds, strict=True)]
                )
                alarms[row, column, resample] = exceeding.double().mean() / (len(scores) - count)
    return {
        f"{percent(Fraction(str(rate)))}, {what}": _shown(rate, count, each)
        for rate, both in zip(RATES, alarms, strict=True)
        for what, each in zip(("image", "pixel"), both, strict=True)
    }


def _shown(rate: float, count: int, alarms: Tensor) -> str:
    """Mean and standard error of the false alarms of all resamples, in percent."""
    needed = images_needed(Fraction(str(rate)))
    missed = f" (takes {needed})" if count < needed else ""
    return f"{100 * alarms.mean():.2f} ± {100 * alarms.std() / len(alarms) ** 0.5:.2f}{missed}"


def _drawn(model: DPCLIP, material: str, seed: int) -> ImageStatistics:
    colors, rng = tuple(COLORS), np.random.default_rng([seed, TARGET_MATERIALS.index(material)])
    images = [render_surface(material, colors[index % len(colors)], SIDE, rng) for index in range(DRAWN)]
    # In 8 bits, as the data set is kept.
    tensors = [torch.from_numpy((image * 255).round().astype(np.uint8)).permute(2, 0, 1) / 255 for image in images]
    return _seen(model, torch.stack(tensors), material)


def _elpv(model: DPCLIP, metadata: Path, root: Path) -> ImageStatistics:
    data = JSONLines(metadata=metadata, root=root, num_workers=0)
    data.prepare_data()
    data.setup()
    normal = [index for index, label in enumerate(data.test_data.samples.label_index) if label == 0]
    prepared = torch.stack([model.pre_processor.resize_only(data.test_data[index].image) for index in normal])
    return _seen(model, prepared, "solar cell")


@torch.inference_mode()
def _seen(model: DPCLIP, images: Tensor, class_name: str) -> ImageStatistics:
    """What a calibration sees of normal images ``(N, 3, H, W)`` of the model's size."""
    anchors = model.target.anchors_for(class_name)
    predictions = [model.model.predict(model.pre_processor.normalize(part), anchors) for part in images.split(32)]
    floor, peak = (
        torch.cat(each) for each in zip(*(p.anomaly_map.flatten(1).aminmax(dim=1) for p in predictions), strict=True)
    )
    return ImageStatistics(floor, peak, torch.cat([p.pred_score for p in predictions]), torch.full_like(peak, UNKNOWN_LABEL))


if __name__ == "__main__":
    run(guarantee)
