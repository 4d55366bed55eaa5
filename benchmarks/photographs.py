"""Real photographs, known by a few good ones or by the unlabelled lot alone: DP-CLIP's memory and PatchCore, the same weights.

    pip install '.[photos]'
    python -m benchmarks.photographs --folders '[photos/transistor,photos/tile]'

A folder has the layout of anomalib's `Folder`: ``train``, ``test/good``, ``test/bad``, ``mask/<name>.png``. Nothing is trained,
and no text counts. The same draws of good photos are the memory's and PatchCore's, and all see images of 384 pixels, at which
maps and masks are compared.
PatchCore's coreset of all photos takes most of an hour, and is left out.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.functional.classification import binary_auroc

from anomalib_dpclip import DPCLIP
from anomalib_dpclip.clip.feature_tower import EMBEDDED, embedded_weights
from anomalib_dpclip.data.images import read_image, read_mask
from anomalib_dpclip.data.photo_files import photo_files
from anomalib_dpclip.data.photos import PhotosDataset
from anomalib_dpclip.metrics.functional import auroc, average_precision
from anomalib_dpclip.metrics.pixel_histogram import PixelHistogram
from anomalib_dpclip.model.arguments import MemoryOptions
from anomalib_dpclip.model.good_images import comparison_of
from anomalib_dpclip.model.settled_thresholds import calibrate_on_batch
from anomalib_dpclip.scorers.batch_scorer import BatchScorer
from anomalib_dpclip.scorers.references import image_tensor
from benchmarks.command import run

PHOTOS = (1, 4, 16, 0)
"""Numbers of good photos; 0 for all of them."""

LAYERS = ["blocks.2", "blocks.4", "blocks.6"]
"""PatchCore's layers: those of the strides that the memory compares, 8, 16 and 32."""

BATCH = 8


class Photographs(NamedTuple):
    """A set of photographs, of the model's size, 8-bit.

    Attributes:
        name: Name of its folder.
        paths: Files of the test images.
        train: Good photos ``(N, 3, H, W)``.
        test: Test images ``(M, 3, H, W)``.
        label: 1 where a test image is anomalous ``(M,)``.
        mask: Ground truth ``(M, H, W)`` bool.
    """

    name: str
    paths: list[str]
    train: Tensor
    test: Tensor
    label: Tensor
    mask: Tensor


def read_photographs(folder: Path, model: Any) -> Photographs:
    """Read a set, resized as the model does."""
    resize, (height, width) = model.pre_processor.resize_only, model.image_size

    def images(paths: Sequence[str]) -> Tensor:
        return torch.stack([(resize(image_tensor(path)) * 255).round().byte() for path in paths])

    good, bad = (list(photo_files((folder / "test" / kind).resolve())) for kind in ("good", "bad"))
    masks = torch.zeros(len(good) + len(bad), height, width, dtype=torch.bool)
    for number, path in enumerate(bad, start=len(good)):
        mask = torch.from_numpy(read_mask(folder / "mask" / f"{Path(path).stem}.png", read_image(path).size)).float()
        masks[number] = torch.nn.functional.interpolate(mask[None, None], (height, width), mode="nearest")[0, 0] > 0
    label = torch.tensor([0] * len(good) + [1] * len(bad))
    train = images(list(photo_files((folder / "train").resolve())))
    return Photographs(folder.name, [*good, *bad], train, images([*good, *bad]), label, masks)


def figures(photographs: Photographs, predict: Callable[[Tensor, list[str]], InferenceBatch]) -> dict[str, float]:
    """Image AUROC, pixel AUROC and pixel AP in percent, and milliseconds an image."""
    histogram, scores, seconds = PixelHistogram(), [], 0.0
    for numbers in torch.arange(len(photographs.test)).split(BATCH):
        start = time.perf_counter()
        with torch.no_grad():
            raw = predict(photographs.test[numbers].float() / 255, [photographs.paths[number] for number in numbers])
        seconds += time.perf_counter() - start
        histogram.update(raw.anomaly_map, photographs.mask[numbers])
        scores.append(raw.pred_score.flatten())
    counts, image = histogram.compute(), binary_auroc(torch.cat(scores), photographs.label).item()
    found = {"image_AUROC": image, "pixel_AUROC": auroc(counts), "pixel_AP": average_precision(counts)}
    rounded = {name: round(100 * float(value), 1) for name, value in found.items()}
    return rounded | {"ms_an_image": round(1000 * seconds / len(photographs.test), 1)}


def memory_rows(photographs: Photographs, draws: Sequence[np.ndarray], count: int) -> Iterator[dict[str, Any]]:
    """DP-CLIP's memory of good photos, no text."""
    for draw, order in enumerate(draws):
        model = memory_model()
        model.set_references(photographs.train[order[: count or None]].float() / 255)
        threshold = model.post_processor.calibration.thresholds.image
        scores: list[Tensor] = []

        def predict(images: Tensor, paths: list[str], model: Any = model, scores: list[Tensor] = scores) -> InferenceBatch:
            raw = model.scorer.score(model.pre_processor.normalize(images), model.model.anchors, paths)
            score = model.post_processor.raw_score(raw, model.post_processor.calibration.scale)
            scores.append(score)
            return raw._replace(pred_score=score.clamp(0, 1))

        row = figures(photographs, predict)
        yield {"model": f"DP-CLIP ({EMBEDDED})", "draw": draw, **row, **rates(torch.cat(scores), photographs.label, threshold)}


def rates(scores: Tensor, label: Tensor, threshold: float) -> dict[str, float]:
    """Shares in percent of good photos that are called anomalous, and of anomalous ones that are not."""
    alarms, missed = (scores[label == 0] > threshold).float().mean(), (scores[label == 1] <= threshold).float().mean()
    return {"false_alarms": round(100 * alarms.item(), 1), "missed": round(100 * missed.item(), 1)}


def lot_row(photographs: Photographs, draw: int) -> dict[str, Any]:
    """DP-CLIP with the test images as an unlabelled lot."""
    model = memory_model()
    dataset = PhotosDataset(photographs.paths, resize=model.pre_processor.resize_only)

    def ready(batch: ImageBatch) -> tuple[Tensor, Tensor]:
        return model.pre_processor.transform(batch.image), model.model.anchors

    scorer = BatchScorer(comparison_of(model), None, text_weight=0.0, ready=ready, seed=111 + draw)
    scorer.prepare(DataLoader(dataset, BATCH, collate_fn=dataset.collate_fn))
    calibration = model.post_processor.calibration
    calibrate_on_batch(calibration, scorer, model.model.domain)
    scores: list[Tensor] = []

    def predict(images: Tensor, paths: list[str]) -> InferenceBatch:
        raw = scorer.score(model.pre_processor.normalize(images), model.model.anchors, paths)
        score = model.post_processor.raw_score(raw, calibration.scale)
        scores.append(score)
        return raw._replace(pred_score=score.clamp(0, 1))

    row = figures(photographs, predict)
    threshold = calibration.thresholds.image
    return {"model": f"DP-CLIP ({EMBEDDED})", "draw": draw, **row, **rates(torch.cat(scores), photographs.label, threshold)}


def patchcore_row(photographs: Photographs, order: np.ndarray) -> dict[str, Any]:
    """Anomalib's PatchCore on the same weights and photos, with its tenth of the tokens as coreset."""
    torch.manual_seed(0)
    model = PatchcoreModel(layers=LAYERS, backbone="tf_efficientnet_lite0", pre_trained=False)
    weights = embedded_weights()
    network = model.feature_extractor.feature_extractor
    own = network.state_dict()
    network.load_state_dict({name: weights[name] for name in own})
    model.train()
    for images in photographs.train[order].split(BATCH):
        model(normalized(images.float() / 255))
    model.subsample_embedding(0.1)
    model.eval()
    found = figures(photographs, lambda images, _: bounded(model(normalized(images))))
    return {"model": "PatchCore", **found}


def normalized(images: Tensor) -> Tensor:
    """Images in [0, 1] as the weights were trained."""
    return (images * 255 - 127) / 128


def bounded(raw: InferenceBatch) -> InferenceBatch:
    """Scores and maps in [0, 1), in the same order: metrics take no others."""
    return raw._replace(anomaly_map=squashed(raw.anomaly_map).squeeze(1), pred_score=squashed(raw.pred_score))


def squashed(values: Tensor) -> Tensor:
    """Distances of any size in [0, 1)."""
    return values / (10 + values)


def memory_model() -> Any:
    """DP-CLIP that compares by the embedded network alone."""
    memory = MemoryOptions(text_weight=0)
    return DPCLIP(backbone="mini", weights="clip", class_name="object", memory_backbone=EMBEDDED, memory=memory).eval()


def rows_of(folder: Path, draws: int) -> list[dict[str, Any]]:
    """All rows of a set, one a draw.

    Args:
        folder: The set.
        draws: Number of draws of good photos.
    """
    rows: list[dict[str, Any]] = []
    found = read_photographs(folder, memory_model())
    orders = [np.random.RandomState(draw).permutation(len(found.train)) for draw in range(draws)]
    for count in PHOTOS:
        known = {"set": found.name, "good_photos": count or len(found.train)}
        drawn = orders if count else orders[:1]
        rows += [known | row for row in memory_rows(found, drawn, count)]
        for draw, order in enumerate(drawn if count else []):
            rows.append(known | {"draw": draw} | patchcore_row(found, order[:count]))
    rows.append({"set": found.name, "good_photos": "lot"} | lot_row(found, 0))
    return rows


def photographs(folders: list[Path], draws: int = 3) -> pd.DataFrame:
    """Score real photographs by good ones, and by the unlabelled lot; a process of one thread a set.

    Args:
        folders: Sets of photographs.
        draws: Number of draws of good photos.
    """
    with ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        rows = [row for found in pool.map(rows_of, folders, repeat(draws)) for row in found]
    table = pd.DataFrame(rows)
    figures_of = ["image_AUROC", "pixel_AUROC", "pixel_AP", "false_alarms", "missed", "ms_an_image"]
    grouped = table.groupby(["set", "good_photos", "model"], sort=False)
    means = grouped[figures_of].mean().round(1)
    means.insert(0, "draws", grouped.size())
    means.insert(2, "image_AUROC_sd", grouped["image_AUROC"].std().round(1))
    return means.reset_index()


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(photographs)
