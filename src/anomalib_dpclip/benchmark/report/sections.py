"""The sections of a report: tables of text, to be written in any format."""

import json
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from anomalib_dpclip.benchmark.report.statistics import auroc_components, auroc_interval
from anomalib_dpclip.benchmark.report.summary import KEYS, MODEL, by_knowledge, done_rows
from anomalib_dpclip.benchmark.report.titles import AVERAGE, KNOWS, LOWER_IS_BETTER, NOT_AVAILABLE, TITLES
from anomalib_dpclip.benchmark.rows import COUNTS, DONE, METRICS, OPERATING_POINTS, SUPERSEDED, read_provenance

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

COSTS_LEGEND = "Peak memory: on a GPU what torch allocated there, on a CPU that of the whole process, libraries included."

WORST = ("image_AUROC", "pixel_AUROC", "pixel_AP", "pixel_AUPRO")


class Section(NamedTuple):
    """A heading, a text and a table, any of which may be empty. ``**`` in cells encloses what is best.

    Attributes:
        title: Heading.
        text: Paragraph.
        heading: Names of the table's columns.
        cells: Its rows.
        left: How many columns, from the first, are text.
        lines: A list.
    """

    title: str
    text: str = ""
    heading: Sequence[str] = ()
    cells: Sequence[Sequence[str]] = ()
    left: int = 2
    lines: Sequence[str] = ()


def sections(
    rows: pd.DataFrame, metrics: pd.DataFrame, images: pd.DataFrame, shift: pd.DataFrame, files: Iterable[Path]
) -> list[Section]:
    """All that a report says.

    Args:
        rows: As `read_rows` gives them.
        metrics: As `summarize` gives them.
        images: Scores of images, as `read_beside` gives them.
        shift: Metrics of corrupted images, likewise.
        files: The CSV files, whose heads say how they were made.
    """
    done = done_rows(rows)
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
        main = {TITLES[metric]: (data_sets[0], metric) for metric in measured}
        line = {TITLES[metric]: (data_sets[0], metric) for metric in ("image_AUROC", *points)}
        found = [_table(data_sets[0], LEGEND, metrics, main)]
        return [*found, _table("Overkill and escape", OPERATING_LEGEND, metrics, line)] if points else found
    found, legend = [], {**dict.fromkeys(points[:1], OPERATING_LEGEND), **dict.fromkeys(measured[:1], LEGEND)}
    for metric in (*measured, *points):
        columns = {name: (name, metric) for name in data_sets if name != AVERAGE} | {AVERAGE: (AVERAGE, metric)}
        found.append(_table(TITLES[metric], legend.get(metric, ""), metrics, columns))
    return found


def _table(title: str, text: str, metrics: pd.DataFrame, columns: dict[str, tuple[str, str]]) -> Section:
    """Models x columns, each column a pair of data set and metric."""
    cells = metrics.set_index(KEYS)
    # In the order of the metrics, which is that of what is known.
    models = list(dict.fromkeys(zip(metrics["label"], metrics["knows"], strict=True)))
    shown: dict[tuple[str, str], list[str]] = {model: [] for model in models}
    for data_set, metric in columns.values():
        found = {model: cells.loc[(*model, data_set, metric)] for model in models if (*model, data_set, metric) in cells.index}
        better = min if metric in LOWER_IS_BETTER else max
        for model in models:
            # Compared as printed: a difference that is not shown is no reason to be bold.
            rivals = [round(cell["mean"], 1) for (_, knows), cell in found.items() if knows == model[1]]
            shown[model].append(_format(found[model], better(rivals)) if model in found else NOT_AVAILABLE)
    rows = [[*model, *texts] for model, texts in shown.items() if set(texts) != {NOT_AVAILABLE}]
    return Section(title, text, ["Model", KNOWS, *columns], rows)


def _format(cell: Any, best: float | None = None) -> str:
    mean = f"{cell['mean']:.1f}"
    text = f"**{mean}**" if round(cell["mean"], 1) == best else mean
    spread = "" if pd.isna(cell["std"]) else f" ± {cell['std']:.1f}"
    return f"{text}{spread}{'†' if cell['partial'] else ''}"


def _worst(done: pd.DataFrame) -> Section:
    """The category in which a model is worst, where it has several."""
    done = done.assign(target=done["data_set"] + "/" + done["category"])
    if len(set(done["target"])) == 1:
        return Section("")
    means = done.groupby([*MODEL, "target"], sort=False)[list(WORST)].mean().reset_index()
    defined = [name for name in WORST if means[name].notna().any()]
    cells = []
    for model, part in by_knowledge(means).groupby(MODEL, sort=False):
        lowest = {name: part.loc[part[name].idxmin()] for name in defined if part[name].notna().any()}
        texts = [
            f"{100 * lowest[name][name]:.1f} ({lowest[name]['target']})" if name in lowest else NOT_AVAILABLE
            for name in defined
        ]
        cells.append([*model, *texts])
    return Section(
        "Worst category", "Percent, mean over seeds and draws.", ["Model", KNOWS, *(TITLES[n] for n in defined)], cells
    )


def _intervals(done: pd.DataFrame, images: pd.DataFrame) -> Section:
    """Image AUROC with its interval over images, of the first seed and draw."""
    cells = []
    for model, part in by_knowledge(done).groupby(MODEL, sort=False):
        first = part[part["run"] == part["run"].iloc[0]]
        groups = [group for key in first["key"] if (group := _groups(images[images["key"] == key])) is not None]
        if groups:
            low, high = auroc_interval(groups)
            count = sum(len(each) for group in groups for each in group)
            cells.append(
                [
                    *model,
                    f"{100 * np.mean([auroc_components(*group).auroc for group in groups]):.1f}",
                    f"{100 * low:.1f} to {100 * high:.1f}",
                    str(count),
                ]
            )
    text = (
        "How far image AUROC could be off by the choice of test images: 95 % interval over images, by bootstrap within each "
        "category, of the first seed and draw. `dpclip report A.csv B.csv --paired` tells whether two rows differ."
    )
    return Section("Image AUROC with its interval", text, ["Model", KNOWS, "Image AUROC", "95 % interval", "Images"], cells)


def _groups(images: pd.DataFrame) -> tuple[Any, Any] | None:
    """Normal and anomalous scores, if there are several of both, without which nothing is known of their spread."""
    scores, labels = images["score"].to_numpy(np.float64), images["label"].to_numpy(np.float64)
    normal, anomalous = scores[labels == 0], scores[labels == 1]
    return (normal, anomalous) if min(len(normal), len(anomalous)) > 1 else None


def _at_thresholds(metrics: pd.DataFrame, done: pd.DataFrame) -> Section:
    """ClassF1, SegF1 and false alarms, beside what was guaranteed and on what thresholds were set."""
    names = ("class_F1", "seg_F1", "false_alarm_rate", "guaranteed_rate")
    part = metrics[metrics["metric"].isin(names)]
    if part.empty:
        return Section("")
    basis = done.groupby(MODEL, sort=False)["threshold_basis"].unique()
    shown = AVERAGE if AVERAGE in set(part["data_set"]) else part["data_set"].iloc[0]
    table = _table("At the thresholds in force", THRESHOLD_LEGEND, part, {TITLES[name]: (shown, name) for name in names})
    cells = [[*row[:2], " / ".join(_shortened(basis[row[0], row[1]])), *row[2:]] for row in table.cells]
    return table._replace(heading=["Model", KNOWS, "Thresholds were set on", *table.heading[2:]], cells=cells, left=3)


def _shortened(texts: Iterable[str]) -> list[str]:
    """At most two of several bases, which differ in the names of categories."""
    found = list(dict.fromkeys(texts))
    return [*found[:1], f"and likewise {len(found) - 1} more"] if len(found) > 1 else found


def _by_defect(done: pd.DataFrame) -> Section:
    """AUROC and AP of each kind of defect, of each model."""
    records = [
        {"label": row.label, "data_set": row.data_set, "defect": defect, **values}
        for row in by_knowledge(done).itertuples()
        for defect, values in (json.loads(row.by_defect) if row.by_defect else {}).items()
    ]
    if not records:
        return Section("")
    table = pd.DataFrame(records)
    means = table.groupby(["data_set", "defect", "label"], sort=False)[["AUROC", "AP"]].mean()
    labels, kinds = list(table["label"].unique()), list(dict.fromkeys(zip(table["data_set"], table["defect"], strict=True)))
    cells = [
        [
            *kind,
            *(
                "{:.1f} / {:.1f}".format(*(100 * means.loc[(*kind, label)])) if (*kind, label) in means.index else NOT_AVAILABLE
                for label in labels
            ),
        ]
        for kind in kinds
    ]
    text = "Image AUROC / AP of each kind of defect against all normal images; mean over categories, seeds and draws, percent."
    return Section("By kind of defect", text, ["Data set", "Defect", *labels], cells)


def _shifted(done: pd.DataFrame, shift: pd.DataFrame) -> Section:
    """Metrics of corrupted images at the thresholds of clean ones."""
    if not len(shift):
        return Section("")
    names = ("image_AUROC", "class_F1", "seg_F1", "false_alarm_rate")
    clean = done[done["key"].isin(shift["key"])].assign(corruption="none", strength=0.0)
    both = pd.concat([clean, shift.merge(done[["key", *MODEL]], on="key")])
    means = both.groupby([*MODEL, "corruption", "strength"], sort=False)[list(names)].mean().reset_index()
    cells = [
        [row["label"], row["corruption"], f"{row['strength']:g}", *(_percent(row[name]) for name in names)]
        for _, row in by_knowledge(means).iterrows()
    ]
    text = "Corrupted test images at the thresholds set on clean ones; percent, mean over categories, seeds and draws."
    return Section("Corrupted images", text, ["Model", "Corruption", "Strength", *(TITLES[name] for name in names)], cells)


def _costs(done: pd.DataFrame) -> Section:
    done = by_knowledge(done)
    once = ~done.duplicated([*MODEL, "accelerator", "data_set", "category"])  # images are counted once, whatever the seeds
    groups = done.assign(**{name: done[name].where(once) for name in COUNTS}).groupby([*MODEL, "accelerator"], sort=False)
    costs = groups.agg(
        runs=("run", "nunique"),
        jobs=("key", "nunique"),
        normal=("normal_images", partial(pd.Series.sum, min_count=1)),
        anomalous=("anomalous_images", partial(pd.Series.sum, min_count=1)),
        latency=("latency_ms", "mean"),
        speed=("images_per_second", "mean"),
        minutes=("training_minutes", "mean"),
        memory=("peak_memory_mb", "max"),
        masks=("mask_resolution", lambda values: ", ".join(dict.fromkeys(value for value in values if value)) or NOT_AVAILABLE),
    )
    heading = [
        *("Model", KNOWS, "On", "Seeds and draws", "Jobs", "Normal images", "Anomalous images", "Milliseconds an image"),
        *("Images per second", "Training minutes", "Peak memory (MiB)", "Masks compared at"),
    ]
    digits = (0, 0, 0, 0, 1, 1, 1, 0)
    rows = [
        [*names, *(_number(value, places) for value, places in zip(row[:-1], digits, strict=True)), row[-1]]
        for names, *row in costs.itertuples()
    ]
    known = [place for place in range(len(heading)) if any(row[place] != NOT_AVAILABLE for row in rows)]
    return Section("Cost", COSTS_LEGEND, [heading[place] for place in known], [[row[place] for place in known] for row in rows])


def _failed(rows: pd.DataFrame) -> Section:
    """Jobs that have no sound row, and notes of those that have."""
    noted = rows[(rows["status"] != DONE) | (rows["reason"] != "")]
    lines = [
        f"{r.label} / {r.data_set} / {r.category} / seed {r.seed}{f' / draw {r.draw}' if r.draw else ''}: "
        f"{'' if r.status in {DONE, SUPERSEDED} else f'{r.status}: '}{r.reason}"
        for r in noted.itertuples()
    ]
    return Section("Jobs that failed or have less to show", lines=lines)


def _percent(value: float) -> str:
    return NOT_AVAILABLE if pd.isna(value) else f"{100 * value:.1f}"


def _number(value: float, digits: int) -> str:
    return NOT_AVAILABLE if pd.isna(value) else f"{value:.{digits}f}"
