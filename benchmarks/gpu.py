"""On a GPU: inference at several batches and precisions, compiled or not, training steps, and the pixel metrics."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from anomalib_dpclip.metrics import PixelHistogram, aupro, auroc
from benchmarks.command import run
from benchmarks.inference import flops_of, model_and_images
from benchmarks.peak_memory import PeakMemory
from benchmarks.timing import alternating_seconds, medians
from benchmarks.training import VARIANTS, TrainingStep

SIDE = 8192
"""Of the large matrix product that stands for the card's practical peak."""

PRECISIONS: dict[str, torch.dtype] = {
    "32-true": torch.float32,
    "16-mixed": torch.float16,
    "bf16-mixed": torch.bfloat16,
    "16-true": torch.float16,
    "bf16-true": torch.bfloat16,
}
"""Of ``--trainer.precision``, and what its products are computed in."""

MAPS = 256
"""For the pixel metrics."""


def gpu(
    backbone: str = "ViT-L-14-336",
    batches: Sequence[int] = (1, 8, 32),
    training_batches: Sequence[int] = (3, 16, 64),
    repeats: int = 10,
) -> pd.DataFrame:
    """Milliseconds an image, rates of arithmetic and memory on the GPU of this machine.

    Args:
        backbone: As in `DPCLIP`; untrained, which costs the same.
        batches: Images a batch of inference.
        training_batches: Images a step of training.
        repeats: Timed rounds.

    Returns:
        One row a measurement. ``of a matrix product`` is the rate as a share of what one large product of random numbers
        reaches at the same precision: how much of the card's practical peak is used.

    Raises:
        RuntimeError: If there is no GPU.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("there is no GPU here that torch can use: measure with `python -m benchmarks.inference`")
    peaks = {dtype: _product_rate(dtype, repeats) for dtype in dict.fromkeys(PRECISIONS.values())}
    rows = [*_inference(backbone, batches, repeats, peaks), *_training(backbone, training_batches, repeats), _metrics(repeats)]
    return pd.DataFrame(rows).astype({"peak MiB": "Int64"})


def _product_rate(dtype: torch.dtype, repeats: int) -> float:
    """FLOP a second of one large product."""
    left, right = torch.randn(2, SIDE, SIDE, device="cuda", dtype=dtype)
    return 2 * SIDE**3 / medians(alternating_seconds({"product": lambda: left @ right}, repeats))["product"]


def _inference(
    backbone: str, batches: Sequence[int], repeats: int, peaks: dict[torch.dtype, float]
) -> Iterator[dict[str, Any]]:
    model, images = model_and_images(backbone, max(batches))
    with torch.inference_mode():
        flops = flops_of(model, images[:1])
    runs: list[tuple[str, bool]] = [(precision, False) for precision in PRECISIONS] + [("bf16-true", True)]
    for precision, compiled in runs:  # the true ones change the model for good: they come last
        dtype = PRECISIONS[precision]
        if precision.endswith("-true") and dtype != torch.float32:
            model, images = model.to(dtype), images.to(dtype)
        candidates: dict[str, Callable[[Tensor], object]] = {"bare tower": model.backbone.visual, "DP-CLIP": model}
        if compiled:  # as a graph of the card, which costs a launch instead of a thousand
            candidates = {"DP-CLIP, compiled": torch.compile(model, mode="reduce-overhead", dynamic=False)}
        for batch in [min(batches), max(batches)] if compiled else batches:
            for what, candidate in candidates.items():
                peak = PeakMemory(torch.cuda.current_device())
                with torch.inference_mode(), _autocast(precision):
                    seconds = _seconds(candidate, images[:batch], repeats)
                rate = flops * batch / seconds
                own = what != "bare tower"  # of that torch does not count the fused attention
                yield {
                    "task": "inference",
                    "precision": precision,
                    "what": what,
                    "batch": batch,
                    "ms an image": round(1000 * seconds / batch, 2),
                    "TFLOP/s": round(rate / 1e12, 1) if own else None,
                    "of a matrix product": round(rate / peaks[dtype], 2) if own else None,
                    "peak MiB": round(peak.mebibytes()),
                }


def _autocast(precision: str) -> AbstractContextManager[Any]:
    return torch.autocast("cuda", PRECISIONS[precision]) if precision.endswith("-mixed") else nullcontext()


def _seconds(candidate: Callable[[Tensor], object], images: Tensor, repeats: int) -> float:
    candidate(images)  # where it is compiled, a graph is recorded in the second run only
    return medians(alternating_seconds({"run": lambda: candidate(images)}, repeats))["run"]


def _training(backbone: str, batches: Sequence[int], repeats: int) -> Iterator[dict[str, Any]]:
    for batch in batches:
        for variant, flags in VARIANTS.items():
            torch.cuda.empty_cache()
            peak = PeakMemory(torch.cuda.current_device())
            seconds = _step_seconds(backbone, batch, repeats, flags)
            yield {
                "task": "training step",
                "precision": "bf16-mixed" if flags.get("bf16") else "32-true",
                "what": variant.replace(", fp32", "").replace(", bf16-mixed", ""),
                "batch": batch,
                "ms an image": None if seconds is None else round(1000 * seconds / batch, 2),
                "peak MiB": None if seconds is None else round(peak.mebibytes()),
            }


def _step_seconds(backbone: str, batch: int, repeats: int, flags: dict[str, Any]) -> float | None:
    """None where the card's memory does not hold it."""
    try:
        return medians(alternating_seconds({"step": TrainingStep(backbone, batch, **flags)}, repeats))["step"]
    except torch.OutOfMemoryError:
        return None


def _metrics(repeats: int, side: int = 518, batch: int = 32) -> dict[str, Any]:
    """The pixel metrics of maps that are on the card already."""
    maps = torch.rand(batch, side, side, device="cuda")
    masks = torch.zeros_like(maps, dtype=torch.bool)
    masks[::2, 100:200, 100:200] = True
    peak = PeakMemory(torch.cuda.current_device())

    def measure() -> None:
        histogram = PixelHistogram().to("cuda")
        for _ in range(0, MAPS, batch):
            histogram.update(maps, masks)
        counts = histogram.compute()
        for metric in (auroc, aupro):
            metric(counts)

    seconds = medians(alternating_seconds({"metrics": measure}, repeats))["metrics"]
    return {
        "task": "pixel metrics",
        "precision": "32-true",
        "what": f"{MAPS} maps of {side} x {side}",
        "batch": batch,
        "ms an image": round(1000 * seconds / MAPS, 2),
        "peak MiB": round(peak.mebibytes()),
    }


if __name__ == "__main__":
    run(gpu)
