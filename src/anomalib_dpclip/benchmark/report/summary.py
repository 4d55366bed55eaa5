"""Means of every metric, measured and published, of every model on every data set, and what they are called in tables."""

import pandas as pd

from anomalib_dpclip.benchmark.knowledge import NOTHING, knowledge_order
from anomalib_dpclip.benchmark.report import published
from anomalib_dpclip.benchmark.rows import AT_THRESHOLDS, DONE, METRICS, OPERATING_POINTS
from anomalib_dpclip.data_sets.names import paper_name

TITLES = {
    "image_AUROC": "Image AUROC",
    "image_AP": "Image AP",
    "image_F1Max": "Image F1-max",
    "pixel_AUROC": "Pixel AUROC",
    "pixel_AP": "Pixel AP",
    "pixel_AUPRO": "Pixel AUPRO",
    "pixel_AUPRO_5": "Pixel AUPRO 5 %",
    "pixel_F1Max": "Pixel F1-max",
    **{f"fpr_at_fnr_{share}": f"Overkill at {share} % escape" for share in (2, 5, 10)},
    **{f"fnr_at_fpr_{share}": f"Escape at {share} % overkill" for share in (2, 5, 10)},
    "class_F1": "ClassF1",
    "seg_F1": "SegF1",
    "false_alarm_rate": "False alarms",
    "guaranteed_rate": "At most, by guarantee",
}

KNOWS = "Knows of the target"
NOT_AVAILABLE = "n/a"
AVERAGE = "Average"

SUMMARIZED = (*METRICS, *OPERATING_POINTS, *AT_THRESHOLDS, "guaranteed_rate")

SHORT = ("image_AUROC", "pixel_AUROC", "pixel_AP", "pixel_AUPRO")
"""One metric of the images, and of the maps how they rank, how sharp they are, and whether they find every defect."""

MODEL = ["label", "knows"]
KEYS = [*MODEL, "data_set", "metric"]


def summarize(rows: pd.DataFrame) -> pd.DataFrame:
    """Every metric of every model on every data set, measured (rows of `read_rows`) and published.

    Returns:
        One row a metric, in percent, those that know least of the target first: ``label``, ``knows``, ``data_set`` (`AVERAGE`
        for the mean over several), ``metric``, ``mean``, ``std`` over seeds and draws (NaN for one), ``partial`` (of fewer
        categories or data sets than another model's), ``published``.
    """
    values = done_rows(rows).melt([*MODEL, "data_set", "category", "run"], list(SUMMARIZED), "metric", "value").dropna()
    values["value"] *= 100
    means = _mean_over(values.assign(partial=False), "category", [*MODEL, "data_set", "run", "metric"])
    if len(means["data_set"].unique()) > 1:
        means = pd.concat([means, _mean_over(means, "data_set", [*MODEL, "run", "metric"]).assign(data_set=AVERAGE)])
    over_runs = means.groupby(KEYS, sort=False)
    measured = over_runs["value"].agg(["mean", "std"]).assign(partial=over_runs["partial"].any()).reset_index()
    both = pd.concat([measured.assign(published=False), _published(list(rows["data_set"].unique()))], ignore_index=True)
    return by_knowledge(both)


def done_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of jobs that succeeded, with ``run``, the seed and draw; a ValueError if there is none."""
    done = rows[rows["status"] == DONE]
    if done.empty:
        raise ValueError("no job of these results succeeded: their reason column says why")
    return done.assign(run=done["seed"] + "/" + done["draw"])


def by_knowledge(table: pd.DataFrame) -> pd.DataFrame:
    """A table sorted by what is known of the target, from nothing to all."""
    return table.sort_values("knows", key=lambda knows: knows.map(knowledge_order), kind="stable", ignore_index=True)


def short_table(rows: pd.DataFrame) -> str:
    """Each model's means over categories, data sets and seeds, in percent, for a terminal; nothing if no job succeeded."""
    if not (rows["status"] == DONE).any():
        return ""
    metrics = summarize(rows)
    measured = metrics[~metrics["published"].astype(bool)]
    shown = measured[measured["data_set"] == AVERAGE] if AVERAGE in set(measured["data_set"]) else measured
    models = pd.MultiIndex.from_frame(shown[MODEL].drop_duplicates())
    table = shown.pivot_table("mean", MODEL, "metric", sort=False).reindex(index=models, columns=list(SHORT)).reset_index()
    table.columns = ["Model", KNOWS, *(TITLES[metric] for metric in SHORT)]
    return table.to_string(index=False, float_format="{:.1f}".format, na_rep=NOT_AVAILABLE)


def _mean_over(values: pd.DataFrame, what: str, keys: list[str]) -> pd.DataFrame:
    """Mean over categories or data sets, ``partial`` where another model has more of them."""
    groups = values.groupby(keys, sort=False)
    means = groups.agg(value=("value", "mean"), partial=("partial", "any"), count=(what, "nunique")).reset_index()
    comparable = [key for key in keys if key not in {*MODEL, "run"}]
    most = values.groupby(comparable)[what].nunique().rename("most").reset_index()
    means["partial"] |= means["count"] < means.merge(most, how="left")["most"]
    return means.drop(columns="count")


def _published(data_sets: list[str]) -> pd.DataFrame:
    """The paper's metrics for the data sets that occur; its averages where all of them do."""
    by_name = {paper_name(name): name for name in data_sets}
    label = f"{published.DPCLIP} (published)"
    records = [(label, by_name[name], metrics) for name, metrics in published.BY_DATA_SET.items() if name in by_name]
    if set(by_name) == set(published.BY_DATA_SET):
        records += [(f"{method} (published)", AVERAGE, metrics) for method, metrics in published.AVERAGES.items()]
    return pd.DataFrame(
        [
            (label, NOTHING, data_set, metric, value, float("nan"), False, True)
            for label, data_set, metrics in records
            for metric, value in metrics._asdict().items()
        ],
        columns=[*KEYS, "mean", "std", "partial", "published"],
    ).dropna(subset="mean")
