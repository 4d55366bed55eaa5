"""Whether a lot's images are ranked better by their likes' scores too: MuSc's re-scoring (RsCIN), on folders of photographs.

    pip install '.[photos]'
    python -m benchmarks.lot_rules --folders '[transistor,tile,elpv]'

A folder has ``test/good`` and ``test/bad``. Nothing is trained, no text counts, and of more than 200 images 200 are taken.
"""

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from anomalib.data import ImageBatch, ImageItem
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader
from torchmetrics.functional.classification import binary_auroc

from anomalib_dpclip import DPCLIP
from anomalib_dpclip.clip.feature_tower import EMBEDDED
from anomalib_dpclip.data.images import read_image
from anomalib_dpclip.data.photo_files import photo_files
from anomalib_dpclip.model.arguments import MemoryOptions
from anomalib_dpclip.model.good_images import comparison_of
from anomalib_dpclip.scorers.batch_scorer import PANEL, BatchScorer, choose_panel
from anomalib_dpclip.scorers.references import image_tensor
from benchmarks.command import run

WINDOWS = range(2, 10)
"""Sizes of neighbourhoods, an image itself included, whose refined scores are averaged."""


def rescored(scores: Tensor, features: Tensor) -> Tensor:
    """Scores ``(N,)`` averaged over images alike, by the cosine of features ``(N, C)`` (MuSc, Li et al., ICLR 2024)."""
    units = functional.normalize(features - features.mean(dim=0), dim=1)
    likeness = (units @ units.T).clamp_min(0)
    refined = []
    for size in WINDOWS:
        nearest, index = likeness.topk(size, dim=1)
        refined.append((nearest * scores[index]).sum(dim=1) / nearest.sum(dim=1))
    return torch.stack(refined).mean(dim=0)


@torch.no_grad()
def lot_rules(folders: list[Path], seed: int = 111) -> pd.DataFrame:
    """Image AUROC of a lot as it is scored, and re-scored.

    Args:
        folders: Folders of photographs.
        seed: Of the choice of 200 images.
    """
    model = DPCLIP(backbone="mini", weights="clip", memory_backbone=EMBEDDED, memory=MemoryOptions(text_weight=0)).eval()
    comparison, anchors, rows = comparison_of(model), model.model.anchors, []
    for folder in folders:
        good, bad = (list(photo_files((folder / "test" / kind).resolve())) for kind in ("good", "bad"))
        every = [(path, 0) for path in good] + [(path, 1) for path in bad]
        taken = [every[number] for number in choose_panel(len(every), seed, PANEL)]
        images = [model.pre_processor.transform(image_tensor(read_image(path))[None])[0] for path, _ in taken]
        items: Any = [ImageItem(image=image, image_path=str(path)) for image, (path, _) in zip(images, taken, strict=True)]
        scorer = BatchScorer(
            comparison, None, text_weight=0, ready=lambda batch: (torch.as_tensor(batch.image), anchors), seed=seed
        )
        scorer.prepare(DataLoader(items, 4, collate_fn=ImageBatch.collate))
        scores, label = scorer.image_statistics().detection, torch.tensor([kind for _, kind in taken])
        *_, deep, joint = zip(*(comparison.encode(image[None], anchors)[0] for image in images), strict=True)
        features = {"all layers": joint, "the deepest layer": deep}
        means = {name: torch.cat([each.mean(dim=1) for each in tokens]) for name, tokens in features.items()}
        rules = {"built in": scores}
        rules |= {f"re-scored, likeness by {name}": rescored(scores, mean) for name, mean in means.items()}
        rules |= {f"half, likeness by {name}": (scores + rescored(scores, mean)) / 2 for name, mean in means.items()}
        for name, values in rules.items():
            rows.append({"set": folder.name, "rule": name, "image_AUROC": round(100 * binary_auroc(values, label).item(), 1)})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    run(lot_rules)
