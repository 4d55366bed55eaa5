"""The sections of a report: tables of text, to be written in any format."""

import json
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from anomalib_dpclip.benchmark.report.statistics import auroc_components, auroc_interval
from anomalib_dpclip.benchmark.report.summary import (
    AVERAGE,
    KEYS,
    KNOWS,
    MODEL,
    NOT_AVAILABLE,
    SHORT,
    TITLES,
    by_knowledge,
    done_rows,
)
from anomalib_dpclip.benchmark.rows import COUNTS, DONE, METRICS, OPERATING_POINTS, SUPERSEDED, read_provenance, title_of

LEGEND = (
    "Percent; mean over categories, then mean ± standard deviation over seeds and draws of good images (where there are "
    "several). **Bold**: best of its column among those that know as much of the target. n/a: undefined or not measured. "
    "†: of fewer categories or data sets than others'."
)

OPERATING_LEGEND = (
    "Overkill: share of normal images called anomalous, at the threshold at which a given share of the anomalous ones is "
    "missed; escape: the reverse. Lower is better."
)

THRESHOLD_LEGEND = (
    "At the thresholds that were in force, which no test image has chosen unless the third column says so. False alarms: share "
    "of normal test images called anomalous."
)

INTERVAL_LEGEND = (
    "How far image AUROC could be off by the choice of test images: 95 % interval over images, by bootstrap within each "
    "category, of the first seed and draw. `dpclip report A.csv B.csv --paired` tells whether two rows differ."
)

DEFECT_LEGEND = (
    "Image AUROC / AP of each kind of defect against all normal images; mean over categories, seeds and draws, percent."
)

SHIFT_LEGEND = "Corrupted test images at the thresholds set on clean ones; percent, mean over categories, seeds and draws."

COSTS_LEGEND = "Peak memory: on a GPU what torch allocated there, on a CPU that of the whole process, libraries included."

LOWER_IS_BETTER = {*OPERATING_POINTS, "false_alarm_rate"}


class Section(NamedTuple):
    """A heading, a text, a table and a list, any of which may be empty. ``**`` in cells encloses what is best.

    The first ``left`` columns of the table are text.
    """

    title: str = ""
    text: str = ""
    heading: Sequence[str] = ()
    cells: Sequence[Sequence[str]] = ()
    left: int = 2
    lines: Sequence[str] = ()


def sections(
    rows: pd.DataFrame, metrics: pd.DataFrame, images: pd.DataFrame, shift: pd.DataFrame, files: Iterable[Path]
) -> list[Section]:
    """All that a report says of rows, their `summarize`, scores of images, metrics of corrupted ones, and heads of files."""
    done = by_knowledge(done_rows(rows))
    found = [
        *_means(rows, metrics),
        _worst(done),
        _intervals(done, images),
        _at_thresholds(metrics, done),
        _by_defect(done),
        _shifted(done, shift),
        _costs(done),
        _failed(rows),
        *(Section(f"How {file.name} was measured", lines=read_provenance(file)) for file in files),
    ]
    return [section for section in found if section.cells or section.lines]


def _means(rows: pd.DataFrame, metrics: pd.DataFrame) -> list[Section]:
    # In the order of the rows, whatever was sorted: the average is the last.
    data_sets = sorted(metrics["data_set"].unique(), key=[*rows["data_set"].unique(), AVERAGE].index)
    known = set(metrics["metric"])
    measured, points = ([name for name in names if name in known] for names in (METRICS, OPERATING_POINTS))
    if len(data_sets) == 1:
        main, line = ({TITLES[each]: (data_sets[0], each) for each in names} for names in (measured, ["image_AUROC", *points]))
        found = [_table(data_sets[0], LEGEND, metrics, main)]
        return [*found, _table("Overkill and escape", OPERATING_LEGEND, metrics, line)] if points else found
    legends = {**dict.fromkeys(points[:1], OPERATING_LEGEND), **dict.fromkeys(measured[:1], LEGEND)}
    return [
        _table(TITLES[each], legends.get(each, ""), metrics, {name: (name, each) for name in data_sets})
        for each in (*measured, *points)
    ]


def _table(title: str, text: str, metrics: pd.DataFrame, columns: dict[str, tuple[str, str]]) -> Section:
    """Models x columns, each column a pair of data set and metric."""
    cells = metrics.set_index(KEYS)
    # In the order of the metrics, which is that of what is known.
    shown: dict[tuple[str, str], list[str]] = {model: [] for model in zip(metrics["label"], metrics["knows"], strict=True)}
    for data_set, metric in columns.values():
        found = {model: cells.loc[(*model, data_set, metric)] for model in shown if (*model, data_set, metric) in cells.index}
        better = min if metric in LOWER_IS_BETTER else max
        for model, texts in shown.items():
            # Compared as printed: a difference that is not shown is no reason to be bold.
            rivals = [round(cell["mean"], 1) for (_, knows), cell in found.items() if knows == model[1]]
            texts.append(_format(found[model], better(rivals)) if model in found else NOT_AVAILABLE)
    rows = [[*model, *texts] for model, texts in shown.items() if set(texts) != {NOT_AVAILABLE}]
    return Section(title, text, ["Model", KNOWS, *columns], rows)


def _format(cell: Any, best: float) -> str:
    mean = f"{cell['mean']:.1f}"
    text = f"**{mean}**" if round(cell["mean"], 1) == best else mean
    spread = "" if pd.isna(cell["std"]) else f" ± {cell['std']:.1f}"
    return f"{text}{spread}{'†' if cell['partial'] else ''}"


def _worst(done: pd.DataFrame) -> Section:
    """The category in which a model is worst, where it has several."""
    done = done.assign(target=done["data_set"] + "/" + done["category"])
    if len(done["target"].unique()) == 1:
        return Section()
    means = done.groupby([*MODEL, "target"], sort=False)[list(SHORT)].mean().dropna(axis="columns", how="all")
    cells = []
    for model, part in means.groupby(MODEL, sort=False):
        lowest = [(part[name].min(), part[name].idxmin()[-1] if part[name].notna().any() else "") for name in means]
        cells.append([*model, *(f"{100 * low:.1f} ({where})" if where else NOT_AVAILABLE for low, where in lowest)])
    heading = ["Model", KNOWS, *(TITLES[name] for name in means)]
    return Section("Worst category", "Percent, mean over seeds and draws.", heading, cells)


def _intervals(done: pd.DataFrame, images: pd.DataFrame) -> Section:
    """Image AUROC with its interval over images, of the first seed and draw."""
    cells = []
    for model, part in done.groupby(MODEL, sort=False):
        first = part[part["run"] == part["run"].iloc[0]]
        tested = [images[images["key"] == key] for key in first["key"]]
        scores = [[each["score"][each["label"] == label].to_numpy(np.float64) for label in (0, 1)] for each in tested]
        groups = [(normal, anomalous) for normal, anomalous in scores if min(len(normal), len(anomalous)) > 1]
        if groups:  # of one image nothing is known of the spread
            mean, interval = np.mean([auroc_components(*group)[0].mean() for group in groups]), auroc_interval(groups)
            count = sum(len(each) for group in groups for each in group)
            cells.append([*model, f"{100 * mean:.1f}", "{:.1f} to {:.1f}".format(*(100 * end for end in interval)), str(count)])
    heading = ["Model", KNOWS, "Image AUROC", "95 % interval", "Images"]
    return Section("Image AUROC with its interval", INTERVAL_LEGEND, heading, cells)


def _at_thresholds(metrics: pd.DataFrame, done: pd.DataFrame) -> Section:
    """ClassF1, SegF1 and false alarms, beside what was guaranteed and on what thresholds were set."""
    names = ("class_F1", "seg_F1", "false_alarm_rate", "guaranteed_rate")
    part = metrics[metrics["metric"].isin(names)]
    if part.empty:
        return Section()
    basis = done.groupby(MODEL, sort=False)["threshold_basis"].unique()
    shown = AVERAGE if AVERAGE in set(part["data_set"]) else part["data_set"].iloc[0]
    table = _table("At the thresholds in force", THRESHOLD_LEGEND, part, {TITLES[name]: (shown, name) for name in names})
    cells = []
    for label, knows, *texts in table.cells:
        first, *others = basis[label, knows]  # which differ in the names of categories
        cells.append([label, knows, f"{first} / and likewise {len(others)} more" if others else first, *texts])
    return table._replace(heading=["Model", KNOWS, "Thresholds were set on", *table.heading[2:]], cells=cells, left=3)


def _by_defect(done: pd.DataFrame) -> Section:
    """AUROC and AP of each kind of defect, of each model."""
    records = [
        {"label": row.label, "data_set": row.data_set, "defect": defect, **values}
        for row in done[done["by_defect"] != ""].itertuples()
        for defect, values in json.loads(row.by_defect).items()
    ]
    if not records:
        return Section()
    means = 100 * pd.DataFrame(records).groupby(["data_set", "defect", "label"], sort=False)[["AUROC", "AP"]].mean()
    texts = {row.Index: f"{row.AUROC:.1f} / {row.AP:.1f}" for row in means.itertuples()}
    kinds = dict.fromkeys((data_set, defect) for data_set, defect, _ in texts)
    labels = dict.fromkeys(label for *_, label in texts)
    cells = [[*kind, *(texts.get((*kind, label), NOT_AVAILABLE) for label in labels)] for kind in kinds]
    return Section("By kind of defect", DEFECT_LEGEND, ["Data set", "Defect", *labels], cells)


def _shifted(done: pd.DataFrame, shift: pd.DataFrame) -> Section:
    """Metrics of corrupted images at the thresholds of clean ones."""
    if not len(shift):
        return Section()
    names = ["image_AUROC", "class_F1", "seg_F1", "false_alarm_rate"]
    clean = done[done["key"].isin(shift["key"])].assign(corruption="none", strength=0.0)
    both = pd.concat([clean, shift.merge(done[["key", *MODEL]], on="key")])
    means = by_knowledge(both.groupby([*MODEL, "corruption", "strength"], sort=False)[names].mean().reset_index())
    cells = [
        [row["label"], row["corruption"], f"{row['strength']:g}", *(_number(100 * row[name], 1) for name in names)]
        for _, row in means.iterrows()
    ]
    heading = ["Model", "Corruption", "Strength", *(TITLES[name] for name in names)]
    return Section("Corrupted images", SHIFT_LEGEND, heading, cells)


def _costs(done: pd.DataFrame) -> Section:
    once = ~done.duplicated([*MODEL, "accelerator", "data_set", "category"])  # images are counted once, whatever the seeds
    groups = done.assign(**{name: done[name].where(once) for name in COUNTS}).groupby([*MODEL, "accelerator"], sort=False)
    total = partial(pd.Series.sum, min_count=1)
    columns: dict[str, tuple[str, Any, int]] = {  # column of the rows, how it is put together, decimals
        "Seeds and draws": ("run", "nunique", 0),
        "Jobs": ("key", "nunique", 0),
        "Normal images": ("normal_images", total, 0),
        "Anomalous images": ("anomalous_images", total, 0),
        "Milliseconds an image": ("latency_ms", "mean", 1),
        "Images per second": ("images_per_second", "mean", 1),
        "Training minutes": ("training_minutes", "mean", 1),
        "Peak memory (MiB)": ("peak_memory_mb", "max", 0),
    }
    found = [groups[name].agg(how).map(partial(_number, digits=digits)) for name, how, digits in columns.values()]
    masks = groups["mask_resolution"].agg(lambda values: ", ".join(dict.fromkeys(filter(None, values))) or NOT_AVAILABLE)
    table = pd.concat([*found, masks], axis=1, keys=[*columns, "Masks compared at"])
    table = table.loc[:, (table != NOT_AVAILABLE).any()]
    return Section("Cost", COSTS_LEGEND, ["Model", KNOWS, "On", *table], table.reset_index().to_numpy().tolist())


def _failed(rows: pd.DataFrame) -> Section:
    """Jobs that have no sound row, and notes of those that have."""
    noted = rows[(rows["status"] != DONE) | (rows["reason"] != "")]
    lines = [
        f"{title_of(row)}: {'' if row['status'] in {DONE, SUPERSEDED} else row['status'] + ': '}{row['reason']}"
        for row in noted.to_dict("records")
    ]
    return Section("Jobs that failed or have less to show", lines=lines)


def _number(value: float, digits: int) -> str:
    return NOT_AVAILABLE if pd.isna(value) else f"{value:.{digits}f}"
