"""Inference on one backbone of each family: time and memory of the whole model against the bare frozen tower."""

import time

import pandas as pd
import torch
from tqdm import tqdm

from benchmarks.command import run
from benchmarks.inference import model_and_images
from benchmarks.peak_memory import PeakMemory
from benchmarks.timing import alternating_seconds, in_new_process, medians

FAMILIES = {
    "CLIP": "ViT-B-16",
    "SigLIP, SigLIP 2": "ViT-B-16-SigLIP-512",
    "EVA": "EVA02-B-16",
    "PE-Core": "PE-Core-B-16",
}


@torch.inference_mode()
def families(backbone: str | None = None, repeats: int = 5) -> pd.DataFrame:
    """Milliseconds and peak memory of an image, single precision, on a backbone of each family.

    On a CPU milliseconds are those that the process worked: a busy machine does not count.

    Args:
        backbone: Only this one.
        repeats: Timed rounds.

    Returns:
        One row a backbone. Memory is that of a process with nothing else in it, weights and text tower included.
    """
    rows = []
    chosen = {backbone: backbone} if backbone else FAMILIES
    for family, name in tqdm(chosen.items(), desc="backbones", leave=False):
        seconds = medians(_seconds(name, repeats))
        peaks = {own: in_new_process("benchmarks.families:peak_memory", backbone=name, own=own) for own in (False, True)}
        rows.append(
            {
                "family": family,
                "backbone": name,
                "bare tower, ms": round(1000 * seconds["bare tower"]),
                "DP-CLIP, ms": round(1000 * seconds["DP-CLIP"]),
                "of the bare tower": round(seconds["DP-CLIP"] / seconds["bare tower"], 3),
                "bare tower, peak MiB": round(peaks[False]),
                "DP-CLIP, peak MiB": round(peaks[True]),
                "of its memory": round(peaks[True] / peaks[False], 3),
            }
        )
    return pd.DataFrame(rows)


def _seconds(backbone: str, repeats: int) -> dict[str, list[float]]:
    model, images = model_and_images(backbone)
    candidates = {"bare tower": lambda: model.backbone.visual(images), "DP-CLIP": lambda: model(images)}
    return alternating_seconds(candidates, repeats, time.perf_counter if torch.cuda.is_available() else time.process_time)


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
