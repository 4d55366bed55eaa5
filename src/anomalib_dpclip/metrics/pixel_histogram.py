"""What the pixel metrics remember of a data set: three histograms of its scores, whatever its size.

Exact curves keep every pixel (some 50 bytes each: 24 GB for 1,700 maps of 518 x 518); these histograms take 24 MB. They
are fine enough: maps of similarity differences fill a few percent of [0, 1], which is still tens of thousands of bins.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torchmetrics import Metric

BINS = 2**20

# A region's pixels share one unit, each 1/size of it. Counted in whole 2^-36ths the sums are exact in any order, the
# same on every device and any number of processes, and need no float64, which some accelerators lack. A region as large
# as a map of 518 x 518 is then off by 2e-6 of itself at most.
REGION_UNIT = 2**36

MOST_REGIONS = 2**63 // REGION_UNIT - 1
"""Anomalous regions (134 million) that one bin holds without overflowing, whatever the scores."""


class PixelCounts(NamedTuple):
    """Histograms of pixel scores over [0, 1]: bin ``b`` holds the scores in ``[b, b + 1) / BINS``, the last one also 1.

    Attributes:
        normal: Normal pixels, ``(BINS,)`` int64.
        anomalous: Anomalous pixels, ``(BINS,)`` int64.
        region_share: Anomalous pixels weighted by ``REGION_UNIT / size`` of their region, ``(BINS,)`` int64.
        regions: Number of anomalous regions, ``()`` int64.
    """

    normal: Tensor
    anomalous: Tensor
    region_share: Tensor
    regions: Tensor


def check_unit_interval(scores: Tensor, name: str) -> None:
    """Refuse scores that leave [0, 1], by the name of what they are.

    A histogram over [0, 1] would pile them up at its ends, and torchmetrics' curves would squash the batches that hold
    them, and only those, through a sigmoid: both change the metrics without a word.

    Raises:
        ValueError: A score is below 0, above 1 or not a number.
    """
    if scores.numel() == 0:
        return
    low, high = torch.stack(torch.aminmax(scores)).tolist()
    if not (low >= 0 and high <= 1):  # written so that NaN fails too
        raise ValueError(
            f"{name} must lie in [0, 1], but span [{low:g}, {high:g}]: keep the model's post-processor (it normalises "
            "scores once a validation run has shown it their range), or scale them before they are measured."
        )


def count_pixels(scores: Tensor, masks: Tensor, judged: Tensor | None = None) -> PixelCounts:
    """Count a batch of anomaly maps into histograms.

    Args:
        scores: Anomaly maps ``(B, H, W)`` in [0, 1].
        masks: Ground truth ``(B, H, W)``, non-zero where anomalous.
        judged: Pixels that count ``(H, W)`` bool; all by default.

    Raises:
        ValueError: Shapes differ, or a score leaves [0, 1].
    """
    if scores.shape != masks.shape or scores.ndim != 3:
        shapes = f"{tuple(scores.shape)} and {tuple(masks.shape)}"
        raise ValueError(f"anomaly maps and masks must share one shape (B, H, W), got {shapes}: resize the masks to the maps")
    check_unit_interval(scores, "anomaly maps")
    anomalous_pixels = masks.to(device=scores.device, dtype=torch.bool, copy=judged is not None)
    bins = torch.empty_like(scores, dtype=torch.int32)
    for one, bins_of_one in zip(scores.detach(), bins, strict=True):  # a map at a time stays in the processor's cache
        bins_of_one.copy_(one.float() * BINS)
    bins.clamp_(max=BINS - 1)
    if judged is not None:
        anomalous_pixels &= judged
    anomalous_bins = bins[anomalous_pixels]
    anomalous = torch.bincount(anomalous_bins, minlength=BINS)
    shares, regions = _region_shares(anomalous_pixels.cpu().numpy())
    return PixelCounts(
        normal=torch.bincount(bins.flatten() if judged is None else bins[:, judged].flatten(), minlength=BINS) - anomalous,
        anomalous=anomalous,
        region_share=torch.zeros_like(anomalous).index_add_(0, anomalous_bins, shares.to(scores.device)),
        regions=torch.tensor(regions, device=scores.device),
    )


def _region_shares(masks: np.ndarray) -> tuple[Tensor, int]:
    """Share of its region of each anomalous pixel, in ``masks``' memory order, and the number of regions.

    Pixels touching at a corner belong together (8-connectivity), as in anomalib's AUPRO.
    """
    shares = [np.empty(0, dtype=np.int64)]
    regions = 0
    for mask in map(_cropped, masks):
        labels, found = ndimage.label(mask, structure=np.ones((3, 3)))
        sizes = np.bincount(labels[mask], minlength=found + 1)
        share = np.zeros_like(sizes)  # label 0 is the background: it has no pixel here, and no share
        share[1:] = (REGION_UNIT + sizes[1:] // 2) // sizes[1:]
        shares.append(share[labels[mask]])
        regions += found
    return torch.from_numpy(np.concatenate(shares)), regions


def _cropped(mask: np.ndarray) -> np.ndarray:
    """The part of a mask that holds its anomalous pixels, in the same order: labelling all of it takes most of the time."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if rows.size else mask[:0]


class PixelHistogram(Metric):
    """Pixel counts of all batches so far; ``compute`` gives them summed over all processes.

    The state is not part of checkpoints: which evaluator was in use must not decide whether one loads.

    Attributes:
        judged: Pixels that count ``(H, W)`` bool; ``None`` for all.

    Example:
        >>> from anomalib_dpclip.metrics import auroc
        >>> histogram = PixelHistogram()
        >>> histogram.update(torch.tensor([[[0.1, 0.2], [0.3, 0.9]]]), torch.tensor([[[0, 0], [0, 1]]]))
        >>> auroc(histogram.compute())
        1.0
    """

    full_state_update = False

    normal: Tensor
    anomalous: Tensor
    region_share: Tensor
    regions: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("normal", "anomalous", "region_share"):
            self.add_state(name, torch.zeros(BINS, dtype=torch.int64), dist_reduce_fx="sum", persistent=False)
        self.add_state("regions", torch.tensor(0), dist_reduce_fx="sum", persistent=False)
        self.judged: Tensor | None = None
        self._batches_of_reader: list[int] = []

    def add_reader(self) -> int:
        """Number of a new reader, for metrics that share the histogram."""
        self._batches_of_reader.append(0)
        return len(self._batches_of_reader) - 1

    def note_batch(self, reader: int) -> bool:
        """Note that a reader is given its next batch; whether it is the first of them, so that it has yet to be counted."""
        counted = max(self._batches_of_reader)
        self._batches_of_reader[reader] += 1
        return self._batches_of_reader[reader] > counted

    def update(self, scores: Tensor | None, masks: Tensor | None, has_mask: Tensor | None = None) -> None:
        """Add a batch, as `count_pixels` takes it; without maps or masks it is passed over.

        Images that ``has_mask`` ``(B,)`` bool is false for have no ground truth and are left out.
        """
        if scores is None or masks is None:
            return
        if has_mask is not None:
            scores, masks = scores[has_mask.to(scores.device)], masks[has_mask.to(masks.device)]
        for name, more in count_pixels(scores, masks, self.judged)._asdict().items():
            getattr(self, name).add_(more)

    def reset(self) -> None:
        """Forget all batches, and who has been given how many."""
        super().reset()
        self._batches_of_reader = [0] * len(self._batches_of_reader)

    def compute(self) -> PixelCounts:
        """The counts, on the CPU: metrics are worked out in float64, which not every accelerator has."""
        return PixelCounts(*(getattr(self, name).cpu() for name in PixelCounts._fields))
