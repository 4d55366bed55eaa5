"""Means of every metric, measured and published, of every model on every data set."""

import pandas as pd

from anomalib_dpclip.benchmark.knowledge import NOTHING, knowledge_order
from anomalib_dpclip.benchmark.report import published
from anomalib_dpclip.benchmark.report.titles import AVERAGE
from anomalib_dpclip.benchmark.rows import AT_THRESHOLDS, DONE, METRICS, OPERATING_POINTS
from anomalib_dpclip.data_sets.names import paper_name

SUMMARIZED = (*METRICS, *OPERATING_POINTS, *AT_THRESHOLDS, "guaranteed_rate")

MODEL = ["label", "knows"]
KEYS = [*MODEL, "data_set", "metric"]


def summarize(rows: pd.DataFrame) -> pd.DataFrame:
    """Every metric of every model on every data set, measured and published.

    Args:
        rows: As `read_rows` gives them.

    Returns:
        One row a metric, in percent, those that know least of the target first: ``label``, ``knows``, ``data_set`` (`AVERAGE`
        for the mean over several), ``metric``, ``mean``, ``std`` over seeds and draws (NaN for one), ``partial`` (of fewer
        categories or data sets than another model's), ``published``.

    Raises:
        ValueError: No job succeeded.
    """
    done = done_rows(rows)
    values = done.melt([*MODEL, "data_set", "category", "run"], list(SUMMARIZED), "metric", "value").dropna()
    values["value"] *= 100
    means = _mean_over(values, "category", [*MODEL, "data_set", "run", "metric"])
    if len(means["data_set"].unique()) > 1:
        average = _mean_over(means, "data_set", [*MODEL, "run", "metric"]).assign(data_set=AVERAGE)
        means = pd.concat([means, average])
    over_runs = means.groupby(KEYS, sort=False)
    measured = over_runs["value"].agg(["mean", "std"]).assign(partial=over_runs["partial"].any()).reset_index()
    both = pd.concat([measured.assign(published=False), _published(list(rows["data_set"].unique()))], ignore_index=True)
    return by_knowledge(both)


def done_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of jobs that succeeded, with ``run``, the seed and draw.

    Raises:
        ValueError: There is none.
    """
    done = rows[rows["status"] == DONE]
    if done.empty:
        raise ValueError("no job of these results succeeded: their reason column says why")
    return done.assign(run=done["seed"] + "/" + done["draw"])


def by_knowledge(table: pd.DataFrame) -> pd.DataFrame:
    """A table sorted by what is known of the target, from nothing to all."""
    return table.sort_values("knows", key=lambda knows: knows.map(knowledge_order), kind="stable", ignore_index=True)


def _mean_over(values: pd.DataFrame, what: str, keys: list[str]) -> pd.DataFrame:
    """Mean over categories or data sets, ``partial`` where another model has more of them."""
    groups = values.groupby(keys, sort=False)
    means = groups["value"].mean().rename("value").to_frame()
    means["partial"] = groups["partial"].any() if "partial" in values else False
    counted = groups[what].nunique()
    comparable = [key for key in keys if key not in {*MODEL, "run"}]
    available = values.groupby(comparable)[what].nunique()
    wanted = means.reset_index()[comparable].merge(available.rename("wanted").reset_index())["wanted"]
    means["partial"] |= counted.to_numpy() < wanted.to_numpy()
    return means.reset_index()


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
