"""The report's charts: models on data sets as bars, every category as dots, false alarms of corrupted images as lines."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anomalib_dpclip.benchmark.corruptions import CORRUPTIONS
from anomalib_dpclip.benchmark.report.summary import TITLES
from anomalib_dpclip.benchmark.rows import ALL, DONE

PANELS = ("image_AUROC", "pixel_AUROC")
_COLOURS = [mpl.colormaps["tab20"](index) for index in (*range(0, 20, 2), *range(1, 20, 2))]  # strong ones first
_TEXT_BOX = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
_MARKERS = "osD^vPX*<>"


def overview_chart(summary: pd.DataFrame) -> Figure:
    """Bars of `summarize`'s AUROC, models on data sets, standard deviation over runs as whiskers, published results hatched."""
    labels, data_sets = list(summary["label"].unique()), list(summary["data_set"].unique())
    height = 1.4 + 0.26 * sum(summary[summary["data_set"] == name]["label"].nunique() + 1 for name in data_sets)
    figure, axes = _panels(summary["metric"], height)
    for name, axis in axes.items():
        bars = summary[summary["metric"] == name].sort_values(
            "data_set", key=lambda names: names.map(data_sets.index), kind="stable"
        )
        bars = bars.assign(place=np.arange(len(bars)) + pd.factorize(bars["data_set"])[0])  # a gap after each data set
        for row in bars.itertuples():
            colour, hatch = _colour(labels.index(row.label)), "///" if row.published else None
            spread = None if pd.isna(row.std) else row.std
            axis.barh(row.place, row.mean, xerr=spread, color=colour, hatch=hatch, edgecolor="white", label=row.label)
            axis.text(1, row.place, f"{row.mean:.1f}", va="center", fontsize=8, bbox=_TEXT_BOX)
        middles = bars.groupby("data_set", sort=False)["place"].mean()
        axis.set_yticks(middles, middles.index)
        axis.set_ylim(bars["place"].max() + 0.8, -0.8)
        axis.set_xlim(0, 100)
    _finish(figure, axes, "AUROC (%), mean over categories")
    return figure


def category_chart(rows: pd.DataFrame) -> Figure:
    """Dots of AUROC of `read_rows`, one line a category, mean over seeds."""
    done = rows[rows["status"] == DONE]
    names = done["category"]
    if len(done["data_set"].unique()) > 1:
        names = done["data_set"].where(names == ALL, done["data_set"] + " / " + names)
    means = done.assign(name=names).melt(["label", "name"], list(PANELS), "metric", "value").dropna()
    categories = list(means["name"].unique())
    figure, axes = _panels(means["metric"], 1.6 + 0.28 * len(categories))
    for panel, axis in axes.items():
        chosen = means[means["metric"] == panel].groupby(["label", "name"], sort=False)["value"].mean()
        for index, label in enumerate(done["label"].unique()):
            values = 100 * chosen[chosen.index.get_level_values("label") == label].droplevel("label")
            places = [categories.index(name) for name in values.index]
            axis.plot(values, places, _MARKERS[index % len(_MARKERS)], label=label, alpha=0.8, color=_colour(index))
        axis.set_yticks(range(len(categories)), categories)
        axis.set_ylim(len(categories) - 0.5, -0.5)
        axis.set_xlim(right=101)
    _finish(figure, axes, "AUROC (%), mean over seeds")
    return figure


def shift_chart(rows: pd.DataFrame, shift: pd.DataFrame) -> Figure:
    """False alarms at the thresholds of clean images against the strength of each corruption, one line a model."""
    clean = rows[rows["key"].isin(shift["key"]) & (rows["status"] == DONE)].set_index("key")
    shift = shift[shift["key"].isin(clean.index)]
    corruptions = [name for name in CORRUPTIONS if name in set(shift["corruption"])]
    figure = Figure(figsize=(3.2 * len(corruptions), 3.6), dpi=150, layout="constrained")
    axes = dict(zip(corruptions, figure.subplots(1, len(corruptions), sharey=True, squeeze=False)[0], strict=True))
    for name, axis in axes.items():
        strengths = CORRUPTIONS[name][1]
        for index, label in enumerate(clean["label"].unique()):
            keys = clean.index[clean["label"] == label]
            part = shift[(shift["corruption"] == name) & shift["key"].isin(keys)].groupby("strength")["false_alarm_rate"].mean()
            rates = [100 * rate for rate in (clean.loc[keys, "false_alarm_rate"].mean(), *part.reindex(strengths))]
            axis.plot(rates, f"-{_MARKERS[index % len(_MARKERS)]}", color=_colour(index), label=label)
        axis.set_xticks(range(len(strengths) + 1), ["clean", *(f"{strength:g}" for strength in strengths)])
        axis.set_ylim(-3, 103)
    _finish(figure, axes, "", {name: f"{name}: {CORRUPTIONS[name][2]}" for name in axes})
    axes[corruptions[0]].set_ylabel("Normal images called anomalous (%)")
    return figure


def _colour(index: int) -> tuple[float, ...]:
    return _COLOURS[index % len(_COLOURS)]


def _panels(metrics: pd.Series, height: float) -> tuple[Figure, dict[str, Axes]]:
    """One panel for image and one for pixel AUROC, without the one that nothing was measured for."""
    shown = [name for name in PANELS if name in set(metrics)]
    figure = Figure(figsize=(5.5 * len(shown) + 1, height), dpi=150, layout="constrained")
    return figure, dict(zip(shown, figure.subplots(1, len(shown), squeeze=False)[0], strict=True))


def _finish(figure: Figure, axes: dict[str, Axes], quantity: str, titles: Mapping[str, str] = TITLES) -> None:
    """Titles, grid and one legend below."""
    entries: dict[str, Artist] = {}
    for name, axis in axes.items():
        axis.set_title(titles[name], fontsize=10)
        axis.set_xlabel(quantity)
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        entries |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
