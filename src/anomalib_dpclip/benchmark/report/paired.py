"""Two rows of results compared image by image and category by category: is the difference more than chance?"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from anomalib_dpclip.benchmark.report.statistics import Components, auroc_components, delong, holm, wilcoxon
from anomalib_dpclip.benchmark.report.summary import TITLES
from anomalib_dpclip.benchmark.rows import DONE, beside, read_beside, read_rows

SIGNIFICANT = 0.05
FEWEST_CATEGORIES = 6
"""With fewer pairs Wilcoxon's two-sided p value cannot be below 0.05."""

COMPARED = ("image_AP", "pixel_AUROC", "pixel_AP", "pixel_AUPRO")
"""Metrics whose category means are compared."""

TARGET = ["data_set", "category"]


def compare(files: Sequence[Path], first: str | None = None, second: str | None = None) -> str:
    """Say in a sentence whether two rows, of one CSV file or of two, differ by more than chance.

    They are named by their labels where a file has several. Rows of different test images are refused, as are those whose
    images' scores are not there.
    """
    places = _two(files, first, second)
    names = [f"{rows['label'].iloc[0]} ({file.name})" for file, rows in places]
    components = [_components(file, rows) for file, rows in places]
    _require_same(components, names)
    targets = list(components[0])
    value, low, high, p = delong(*([part[target][1] for target in targets] for part in components))
    images = sum(len(components[0][target][0]) for target in targets)
    what = "AUROC" if len(targets) == 1 else f"mean AUROC of {len(targets)} categories"
    verdict = "more than chance" if p < SIGNIFICANT else "no more than chance"
    text = (
        f"Image {what} of {names[0]} is {100 * value:+.1f} points against {names[1]} on the same {images} images "
        f"(95 % interval {100 * low:+.1f} to {100 * high:+.1f}), {verdict} (DeLong, p = {_p(p)})"
    )
    return f"{text}; {_over_categories(places[0][1], places[1][1])}."


def _two(files: Sequence[Path], first: str | None, second: str | None) -> list[tuple[Path, pd.DataFrame]]:
    """The two rows to compare, each with its file."""
    if len(files) > 2:
        raise ValueError(f"--paired compares two rows, of one file or of two, not of {len(files)}")
    tables = [(file, rows[rows["status"] == DONE]) for file in files for rows in [read_rows(file)]]
    if len(tables) == 1 and first is None and second is None:
        labels = list(tables[0][1]["label"].unique())
        first, second = labels if len(labels) == 2 else (None, None)
    sides = zip((tables[0], tables[-1]), (first, second), ("--first", "--second"), strict=True)
    return [_row(file, rows, label, argument) for (file, rows), label, argument in sides]


def _row(file: Path, rows: pd.DataFrame, label: str | None, argument: str) -> tuple[Path, pd.DataFrame]:
    labels = list(rows["label"].unique())
    label = labels[0] if label is None and len(labels) == 1 else label
    if label not in labels:
        what = "which row" if label is None else f"no row {label!r}"
        raise ValueError(f"{file}: {what} of those that succeeded? Name one with {argument}: {', '.join(labels) or 'none'}")
    return file, rows[rows["label"] == label]


Parts = dict[tuple[str, str], tuple[list[str], Components]]
"""Names of the images, and components of their AUROC, of each category."""


def _components(file: Path, rows: pd.DataFrame) -> Parts:
    """Of each category with images of both kinds, averaged over seeds and draws, which is the components' of the mean AUROC."""
    scores = read_beside(file, "images")
    if not set(rows["key"]) <= set(scores["key"]):
        raise FileNotFoundError(
            f"{beside(file, 'images')}: scores of images are missing, which --paired compares; measure again "
            f"with `dpclip benchmark --fresh true`, which keeps them"
        )
    found: Parts = {}
    for target, part in rows.groupby(TARGET, sort=False):
        runs = [scores[scores["key"] == key].sort_values("image") for key in part["key"]]
        labels = runs[0]["label"].to_numpy()
        values = np.stack([run["score"].to_numpy(float) for run in runs])
        if 0 < labels.sum() < len(labels):
            normal, anomalous = zip(*(auroc_components(run[labels == 0], run[labels == 1]) for run in values), strict=True)
            found[target] = (list(runs[0]["image"]), (np.mean(normal, axis=0), np.mean(anomalous, axis=0)))
    if not found:
        raise ValueError(f"{file}: no category with normal and anomalous images, of which there is an AUROC to compare")
    return found


def _require_same(parts: Sequence[Parts], names: Sequence[str]) -> None:
    """Refuse rows of different test images."""
    tested = [{("/".join(target), image) for target, (images, _) in part.items() for image in images} for part in parts]
    for own, other in ((0, 1), (1, 0)):
        only = sorted(tested[own] - tested[other])
        if only:
            raise ValueError(
                f"{names[own]} was tested on {only[0][1]} of {only[0][0]}, {names[other]} was not: only rows of the same test "
                f"images can be compared"
            )


def _over_categories(first: pd.DataFrame, second: pd.DataFrame) -> str:
    """Which metrics' category means differ."""
    both = [rows.groupby(TARGET)[list(COMPARED)].mean() for rows in (first, second)]
    defined = [name for name in COMPARED if both[0][name].notna().all() and both[1][name].notna().all()]
    count = len(both[0])
    if count < FEWEST_CATEGORIES or not defined:
        return f"{count} {'category is' if count == 1 else 'categories are'} too few for a test over categories"
    values = holm([wilcoxon(both[0][name].to_numpy(), both[1][name].to_numpy()) for name in defined])
    found = [f"{TITLES[name]} (p = {_p(p)})" for name, p in zip(defined, values, strict=True) if p < SIGNIFICANT]
    if found:
        return f"over the categories {', '.join(found)} differ by more than chance (Wilcoxon, Holm)"
    names, lowest = ", ".join(TITLES[name] for name in defined), _p(min(values))
    return f"over the categories none of {names} differs by more than chance (Wilcoxon, Holm, lowest p = {lowest})"


def _p(value: float) -> str:
    return "under 0.001" if value < 0.001 else f"{value:.3f}"
