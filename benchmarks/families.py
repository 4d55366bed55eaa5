"""Inference on one backbone of each family: time and memory of the whole model against the bare frozen tower."""

import pandas as pd
import torch
from tqdm import tqdm

from anomalib_dpclip.benchmark.peak_memory import PeakMemory
from benchmarks.command import run
from benchmarks.inference import inference, model_and_images
from benchmarks.timing import in_new_process

FAMILIES = {
    "CLIP": "ViT-B-16",
    "SigLIP, SigLIP 2": "ViT-B-16-SigLIP-512",
    "EVA": "EVA02-B-16",
    "PE-Core": "PE-Core-B-16",
    "MobileCLIP": "MobileCLIP2-B",
    "CLIPA": "ViT-L-14-CLIPA",
}


def families(backbone: str | None = None, repeats: int = 5) -> pd.DataFrame:
    """Milliseconds and peak memory of an image, single precision, on a backbone of each family.

    Args:
        backbone: Only this one.
        repeats: Timed rounds.

    Returns:
        One row a backbone. Memory is that of a process with nothing else in it, weights and text tower included.
    """
    rows = []
    chosen = {backbone: backbone} if backbone else FAMILIES
    for family, name in tqdm(chosen.items(), desc="backbones", leave=False):
        seconds = inference(name, repeats=repeats).set_index("what")
        peaks = {own: in_new_process("benchmarks.families:peak_memory", backbone=name, own=own) for own in (False, True)}
        rows.append(
            {
                "family": family,
                "backbone": name,
                "bare tower, ms": seconds.loc["bare tower", "milliseconds an image"],
                "DP-CLIP, ms": seconds.loc["DP-CLIP", "milliseconds an image"],
                "of the bare tower": seconds.loc["DP-CLIP", "of the bare tower"],
                "bare tower, peak MiB": round(peaks[False]),
                "DP-CLIP, peak MiB": round(peaks[True]),
                "of its memory": round(peaks[True] / peaks[False], 3),
            }
        )
    return pd.DataFrame(rows)


def peak_memory(backbone: str, own: bool) -> float:
    """Peak MiB of a process that sees one image.

    Args:
        backbone: As in `DPCLIP`.
        own: Whether the whole model sees it, or the bare tower.
    """
    model, images = model_and_images(backbone)
    candidate = model if own else model.backbone.visual
    peak = PeakMemory(torch.cuda.current_device() if torch.cuda.is_available() else None)
    with torch.inference_mode():
        candidate(images)
    return peak.mebibytes()


if __name__ == "__main__":
    run(families)
