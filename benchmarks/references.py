"""What photos of the target add, and what the unlabelled lot adds: the four targets of Surfaces, or any other materials.

    python -m benchmarks.references [--lot]

For each seed adapters are trained as ``configs/quickstart.yaml`` says; the seed also chooses the photos.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from anomalib_dpclip.scorers.evidence_fusion import memory_weight
from anomalib_dpclip.scorers.mutual_scoring import mutual_distances
from anomalib_dpclip.scorers.token_memory import smooth_distance
from torch import Tensor

from anomalib_dpclip import Surfaces
from anomalib_dpclip.method.class_names import describe
from anomalib_dpclip.metrics.functional import auroc, average_precision
from anomalib_dpclip.metrics.pixel_histogram import count_pixels
from anomalib_dpclip.model.from_file import model_from_file
from anomalib_dpclip.pre_processing.pre_processor import CLIPPreProcessor
from anomalib_dpclip.scorers.memory_fit import MEMORY_TOKENS, build_memory
from anomalib_dpclip.scorers.references import read_references, resized, training_references
from benchmarks.results import write_results
from benchmarks.surfaces_adapters import learn_surfaces

PHOTOS = (1, 2, 4, 8, 16)
LOTS = {"5 %": 4, "20 %": 20, "50 %": 80}
"""Anomalous images beside the 80 normal ones."""
SMALL_LOTS = (2, 4, 8, 16)


class Target:
    """Test images of a material, seen once.

    Args:
        adapters: File of the adapters.
        root: Folder of Surfaces.
        category: The material.
    """

    def __init__(self, adapters: Path, root: Path, category: str) -> None:
        self.name = category
        model = model_from_file(adapters, class_name=describe("Surfaces", category)).eval()
        self.model, self.anchors = model.model, model.target.anchors_for(describe("Surfaces", category))
        self.data = Surfaces(root=root, category=category)
        self.data.prepare_data()
        self.data.setup()
        items = [self.data.test_data[index] for index in range(len(self.data.test_data))]
        images = torch.stack([item.image for item in items])
        self.labels = torch.stack([item.gt_label for item in items]).long()
        self.masks = torch.stack([item.gt_mask for item in items]).view(-1, *images.shape[-2:]).bool()
        prepared = model.pre_processor.normalize(images)
        self.text = model.model.predict(prepared, self.anchors)
        self.evidence = model.model.evidence(prepared, self.anchors)

    def metrics(self, maps: Tensor, detection: Tensor, images: Tensor | None = None) -> dict[str, float]:
        """Image AUROC, pixel AUROC and pixel AP of maps ``(N, H, W)`` and detection scores ``(N,)`` of the images named.

        The image score is that of the method: peak and detection score, each min-max scaled, averaged.
        """
        chosen = torch.arange(len(self.labels)) if images is None else images
        labels = self.labels[chosen]
        peak = maps.amax(dim=(-2, -1))
        score = torch.stack([(each - each.min()) / (each.max() - each.min()) for each in (peak, detection)]).mean(0)
        normal, anomalous = score[labels == 0], score[labels == 1]
        wins = (anomalous[:, None] > normal).double() + (anomalous[:, None] == normal).double() / 2
        counts = count_pixels(maps, self.masks[chosen])
        values = {"image_AUROC": wins.mean().item(), "pixel_AUROC": auroc(counts), "pixel_AP": average_precision(counts)}
        return {name: round(100 * value, 2) for name, value in values.items()}

    def fused(self, distance: Tensor, share: float | Tensor, images: Tensor | None = None) -> dict[str, float]:
        """`metrics` of a distance and the text."""
        chosen = torch.arange(len(self.labels)) if images is None else images
        difference, score = self.evidence.difference[chosen], self.evidence.score[chosen]
        return self.metrics(*self.model.fused_prediction(difference, distance, torch.as_tensor(share), score), images)


def text_alone(target: Target) -> Iterator[dict]:
    """The model without photos."""
    yield {"knows": "nothing", "judged by": "text", **target.metrics(target.text.anomaly_map, target.text.pred_score)}


def with_photos(target: Target, seed: int) -> Iterator[dict]:
    """The memory of k photos, alone and fused."""
    for photos in PHOTOS:
        paths = training_references(target.data, photos, seed)
        prepare = CLIPPreProcessor(target.model.input_size)
        images = resized(read_references(paths), prepare.resize_only)
        memory, _ = build_memory(target.model, images, prepare.normalize, target.anchors, MEMORY_TOKENS, seed)
        distance = memory(target.evidence.tokens)
        for name, share in (("memory", 1.0), ("both", memory.share)):
            yield {"knows": f"{photos} photos", "judged by": name, "share": float(share), **target.fused(distance, share)}


def with_lot(target: Target, seed: int) -> Iterator[dict]:
    """The lot, alone and fused, at several shares of anomalous images and sizes."""
    normal, anomalous = (target.labels == 0).nonzero()[:, 0], (target.labels == 1).nonzero()[:, 0]
    for share_of_anomalous, count in LOTS.items():
        images = torch.cat([normal, anomalous[torch.linspace(0, len(anomalous) - 1, count).long()]])
        yield from _judged(target, [images], f"lot, {share_of_anomalous} anomalous")
    order = torch.randperm(len(target.labels), generator=torch.Generator().manual_seed(seed))
    for size in SMALL_LOTS:
        yield from _judged(target, list(order.split(size)), f"lots of {size}, 50 % anomalous")


def _judged(target: Target, lots: list[Tensor], knows: str) -> Iterator[dict]:
    tokens = target.evidence.tokens.half()
    distance = torch.cat([mutual_distances(tokens[lot], tokens[lot], range(len(lot))) for lot in lots])
    images = torch.cat(lots)
    for name, share in (("lot", 1.0), ("both", lot_share(target, distance, images))):
        yield {"knows": knows, "judged by": name, "share": share, **target.fused(distance, share, images)}


def lot_share(target: Target, distance: Tensor, images: Tensor) -> float:
    """How much the lot counts beside the text, as the model weighs it."""
    smooth = smooth_distance(distance.unflatten(-1, target.model.backbone.grid))
    half = smooth.flatten(1).amax(1).argsort()[: len(images) // 2]
    pairs = torch.stack([target.evidence.difference[images][half].flatten(), smooth[half].flatten()], dim=1)
    return memory_weight(pairs, pairs[:0])


def main() -> None:
    """Measure and write ``references.csv`` and ``references.md``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[111, 112, 113])
    parser.add_argument("--root", type=Path, default=Path("datasets/Surfaces"))
    parser.add_argument("--lot", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmark_results"))
    arguments = parser.parse_args()
    rows = []
    for seed in arguments.seeds:
        with TemporaryDirectory() as folder:
            adapters = learn_surfaces(Path(folder) / "adapters.safetensors", arguments.root, seed)
            for category in Surfaces.target_categories:
                with torch.no_grad():
                    target = Target(adapters, arguments.root, category)
                    parts = (text_alone(target), with_lot(target, seed) if arguments.lot else with_photos(target, seed))
                    rows += [{"category": category, "seed": seed, **row} for part in parts for row in part]
    name = "references_lot" if arguments.lot else "references"
    command = f"python -m benchmarks.references{' --lot' if arguments.lot else ''}"
    write_results(pd.DataFrame(rows), arguments.out, name, command)


if __name__ == "__main__":
    main()
