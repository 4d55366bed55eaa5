"""How a second network's features are best compared with good photos: the rule that is built in, and others, on folders.

    pip install '.[photos]'
    python -m benchmarks.token_rules --folders '[transistor,tile,elpv]'

A folder has the layout of anomalib's `Folder`, with ``train``, ``test/good``, ``test/bad`` and, if there are masks,
``mask/NAME.png``. Nothing is trained and no text counts. The labels of transistor and tile chose the built-in rule between
those of this table. The image score is the mean of the highest tokens alone, without the map's peak that the model's has
beside it.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.classification import binary_auroc
from torchvision.transforms.v2.functional import gaussian_blur, resize, to_image

from anomalib_dpclip.clip.feature_tower import EMBEDDED, load_feature_tower
from anomalib_dpclip.data.images import read_image, read_mask
from anomalib_dpclip.data.photo_files import photo_files
from anomalib_dpclip.metrics.functional import auroc, average_precision
from anomalib_dpclip.metrics.pixel_histogram import PixelHistogram
from anomalib_dpclip.pre_processing.resize import resize_bilinear
from anomalib_dpclip.scorers.fusion import TOP_SHARE, unit_interval
from anomalib_dpclip.scorers.memory_scorer import nearest_distance, sparse_numbers, spread_of
from benchmarks.command import run

GRID, MASK_SIZE = (32, 32), (256, 256)
PHOTOS = (1, 4)
DRAWS = 3

Maps = Mapping[int, Sequence[Tensor]]
"""Feature maps ``(N, C, h, w)`` of strides 8, 16 and 32, by the side of the images."""


class Rule(NamedTuple):
    """One way to compare.

    Attributes:
        joint: Weight of all layers' vectors together.
        separate: Weight of the layers' own vectors.
        joint_size: Side of the images that the joint vectors are of.
        separate_size: Side of the images that the layers' own vectors are of.
        vectors: The layers' own: of unit length, as they are (raw), or less their image's mean (centred).
        neighbourhood: Side of the neighbourhood that features are averaged over.
        top_share: Share of the tokens, the highest, whose mean is the image score.
        mirrored: Whether mirrored photos join the memory.
    """

    joint: float = 1.0
    separate: float = 0.25
    joint_size: int = 512
    separate_size: int = 256
    vectors: str = "unit"
    neighbourhood: int = 3
    top_share: float = TOP_SHARE
    mirrored: bool = False


RULES = {
    "built in": Rule(),
    "all layers together alone": Rule(separate=0),
    "layer by layer alone": Rule(joint=0, separate=1),
    "both count alike": Rule(separate=1),
    "together of 384 pixels": Rule(joint_size=384),
    "together of 256 pixels": Rule(joint_size=256),
    "layer by layer of 512 pixels": Rule(separate_size=512),
    "layer by layer, raw": Rule(vectors="raw"),
    "layer by layer, centred": Rule(vectors="centred"),
    "no average of neighbours": Rule(neighbourhood=1),
    "average of 5 x 5 neighbours": Rule(neighbourhood=5),
    "image score of 0.5 %": Rule(top_share=0.005),
    "image score of 2 %": Rule(top_share=0.02),
    "mirrored photos as well": Rule(mirrored=True),
}


def pooled(features: Tensor, side: int, *, zeros: bool) -> Tensor:
    """Averages over a neighbourhood."""
    return functional.avg_pool2d(features.float(), side, 1, side // 2, count_include_pad=zeros)


def flat(features: Tensor) -> Tensor:
    """Feature maps as tokens ``(N, L, C)``."""
    return features.flatten(2).transpose(1, 2)


def layers_of(maps: Maps, rule: Rule) -> list[tuple[Tensor, float]]:
    """Tokens ``(N, L, C)`` of a rule, and how much their distances count."""
    found = []
    if rule.separate:
        for number, each in enumerate(maps[rule.separate_size]):
            tokens = flat(each.float() if number == 2 else pooled(each, rule.neighbourhood, zeros=False))
            if rule.vectors != "raw":
                tokens = functional.normalize(tokens, dim=-1)
            if rule.vectors == "centred":
                tokens = tokens - tokens.mean(dim=1, keepdim=True)
            found.append((tokens, rule.separate / 3))
    if rule.joint:
        large = [resize_bilinear(pooled(each, rule.neighbourhood, zeros=True), GRID) for each in maps[rule.joint_size]]
        found.append((flat(torch.cat(large, dim=1)), rule.joint))
    return found


def distances(known: Maps, tested: Maps, rule: Rule) -> Tensor:
    """Summed distances of test images to good photos ``(N, 32, 32)``."""
    total = torch.zeros(())
    for (keys, weight), (tokens, _) in zip(layers_of(known, rule), layers_of(tested, rule), strict=True):
        side = round(tokens.shape[1] ** 0.5)
        memory = keys[:, sparse_numbers(torch.arange(side * side), (side, side))].flatten(0, 1)
        nearest = torch.stack([nearest_distance(each, memory) for each in tokens]).unflatten(1, (side, side))
        on_grid = functional.interpolate(nearest.unsqueeze(1), GRID, mode="bilinear", antialias=side > GRID[0]).squeeze(1)
        total = total + weight * on_grid / spread_of(keys)
    return total


def figures(distance: Tensor, rule: Rule, label: Tensor, masks: Tensor | None) -> dict[str, float]:
    """Image AUROC, and with masks pixel AUROC and pixel AP, in percent."""
    deviations = (distance - distance.median()) / distance.std()
    highest, _ = deviations.flatten(1).topk(max(1, round(rule.top_share * distance[0].numel())))
    found = {"image_AUROC": binary_auroc(unit_interval(highest.mean(1)), label).item()}
    if masks is not None:
        smooth = gaussian_blur(unit_interval(deviations).unsqueeze(1), [7, 7], [1.25, 1.25])
        histogram = PixelHistogram()
        histogram.update(functional.interpolate(smooth, MASK_SIZE, mode="bilinear").squeeze(1), masks)
        counts = histogram.compute()
        found |= {"pixel_AUROC": auroc(counts), "pixel_AP": average_precision(counts)}
    return {name: 100 * float(value) for name, value in found.items()}


def read_folder(folder: Path) -> tuple[list[str], list[str], Tensor, Tensor | None]:
    """Good photos, test images, their labels ``(N,)`` and masks ``(N, H, W)``, if there are any."""
    train, good, bad = (list(photo_files((folder / part).resolve())) for part in ("train", "test/good", "test/bad"))
    label = torch.tensor([0] * len(good) + [1] * len(bad))
    if not (folder / "mask").is_dir():
        return train, [*good, *bad], label, None
    masks = torch.zeros(len(good) + len(bad), *MASK_SIZE, dtype=torch.bool)
    for number, path in enumerate(bad, start=len(good)):
        mask = torch.from_numpy(read_mask(folder / "mask" / f"{Path(path).stem}.png", read_image(path).size)).float()
        masks[number] = functional.interpolate(mask[None, None], MASK_SIZE, mode="nearest")[0, 0] > 0
    return train, [*good, *bad], label, masks


def feature_maps(paths: Sequence[str], encode: Callable[[Tensor], list[Tensor]], *, mirrored: bool = False) -> Maps:
    """Feature maps in half precision of photos, or of their mirror images."""
    found = {}
    for side in (256, 384, 512):
        each = []
        for path in paths:
            image = resize(to_image(read_image(path).convert("RGB")), [side, side], antialias=True).float() / 255
            each.append([features.half() for features in encode(image.flip(-1)[None] if mirrored else image[None])])
        found[side] = [torch.cat(layer) for layer in zip(*each, strict=True)]
    return found


def chosen(maps: Maps, numbers: np.ndarray) -> Maps:
    """Those of some images."""
    return {side: [layer[numbers] for layer in layers] for side, layers in maps.items()}


@torch.no_grad()
def token_rules(folders: list[Path]) -> pd.DataFrame:
    """What each rule finds with one and with four good photos, mean of three draws.

    Args:
        folders: Folders of photographs.
    """
    tower, rows = load_feature_tower(EMBEDDED), []
    for folder in folders:
        train, test, label, masks = read_folder(folder)
        tested, plain, mirrored = (
            feature_maps(test, tower),
            *(feature_maps(train, tower, mirrored=kind) for kind in (False, True)),
        )
        for (name, rule), count in ((each, count) for each in RULES.items() for count in PHOTOS):
            found = []
            for draw in range(DRAWS):
                numbers = np.random.RandomState(draw).permutation(len(train))[:count]
                known = chosen(plain, numbers)
                if rule.mirrored:
                    other = chosen(mirrored, numbers)
                    known = {side: [torch.cat(pair) for pair in zip(known[side], other[side], strict=True)] for side in known}
                found.append(figures(distances(known, tested, rule), rule, label, masks))
            rows.append({"set": folder.name, "good_photos": count, "rule": name, **pd.DataFrame(found).mean().round(1)})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    run(token_rules)
