"""From benchmark rows to what a person reads: a Markdown report and two charts, made from the CSV alone."""

from pathlib import Path
from typing import Any

import pandas as pd

from anomalib_dpclip.benchmark import published
from anomalib_dpclip.benchmark.knowledge import NOTHING, knowledge_order
from anomalib_dpclip.benchmark.rows import DONE, LINE_METRICS, METRICS, read_provenance, read_rows
from anomalib_dpclip.files.atomic_write import atomic_write
from anomalib_dpclip.files.markdown_table import escape_pipes, markdown_table
from anomalib_dpclip.method.data_sets import paper_name

AVERAGE = "Average"
NOT_AVAILABLE = "n/a"

TITLES = {
    "image_AUROC": "Image AUROC",
    "image_AP": "Image AP",
    "image_F1Max": "Image F1-max",
    "pixel_AUROC": "Pixel AUROC",
    "pixel_AP": "Pixel AP",
    "pixel_AUPRO": "Pixel AUPRO",
    "pixel_F1Max": "Pixel F1-max",
    **{f"overkill_at_{share}": f"Overkill at {share} % escape" for share in (2, 5, 10)},
    **{f"escape_at_{share}": f"Escape at {share} % overkill" for share in (2, 5, 10)},
}

KNOWS = "Knows of the target"

KEYS = ["label", "knows", "data_set", "metric"]

LEGEND = (
    "Percent; mean over categories, then mean ± standard deviation over seeds (where there are several). "
    "**Bold**: best of its column among those that know as much of the target. n/a: undefined or not measured. "
    "†: of fewer categories or data sets than others'."
)

LINE_LEGEND = (
    "Overkill: share of normal images called anomalous, at the threshold at which a given share of the anomalous ones is "
    "missed; escape: the reverse. Lower is better."
)

NO_LINE = "Overkill and escape: n/a, these rows are from before they were measured."

COSTS_LEGEND = "Peak memory: on a GPU what torch allocated there, on a CPU that of the whole process, libraries included."


def report(files: list[Path], out: Path | None = None) -> None:
    """Tabulate and draw benchmark results.

    Args:
        files: CSV files that `dpclip benchmark` wrote.
        out: Folder for report.md, overview.png and categories.png. By default the Markdown is printed.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: A file is not one of benchmark results, or none of its jobs succeeded.
    """
    rows = read_rows(*files)
    metrics = summarize(rows)
    markdown = _markdown(rows, metrics, files)
    if out is None:
        print(markdown)  # noqa: T201 printing is what was asked for
        return
    from anomalib_dpclip.benchmark.charts import category_chart, overview_chart

    pictures = "![Overview](overview.png)\n\n![Categories](categories.png)\n"
    with atomic_write(out / "report.md") as unfinished:
        unfinished.write_text(f"{markdown}\n{pictures}", encoding="utf-8")
    for name, chart in (("overview", overview_chart(metrics)), ("categories", category_chart(rows))):
        with atomic_write(out / f"{name}.png") as unfinished:
            chart.savefig(unfinished)


def summarize(rows: pd.DataFrame) -> pd.DataFrame:
    """Every metric of every model on every data set, measured and published.

    Args:
        rows: As `read_rows` gives them.

    Returns:
        One row a metric, in percent, those that know least of the target first: ``label``, ``knows``, ``data_set`` (`AVERAGE`
        for the mean over several), ``metric``, ``mean``,
        ``std`` (NaN for one seed), ``partial`` (of fewer categories or data sets than another model's),
        ``published``.

    Raises:
        ValueError: No job succeeded.
    """
    done = rows[rows["status"] == DONE]
    if done.empty:
        raise ValueError("no job of these results succeeded: their reason column says why")
    columns = ["label", "knows", "data_set", "category", "seed"]
    values = done.melt(columns, [*METRICS, *LINE_METRICS], "metric", "value").dropna()
    values["value"] *= 100
    means = _mean_over(values, "category", ["label", "knows", "data_set", "seed", "metric"])
    if len(means["data_set"].unique()) > 1:
        average = _mean_over(means, "data_set", ["label", "knows", "seed", "metric"]).assign(data_set=AVERAGE)
        means = pd.concat([means, average])
    over_seeds = means.groupby(KEYS, sort=False)
    measured = over_seeds["value"].agg(["mean", "std"]).assign(partial=over_seeds["partial"].any()).reset_index()
    both = pd.concat([measured.assign(published=False), _published(list(rows["data_set"].unique()))], ignore_index=True)
    return both.sort_values("knows", key=_knowledge_orders, kind="stable", ignore_index=True)


def _knowledge_orders(knows: pd.Series) -> pd.Series:
    return knows.map(knowledge_order)


def _mean_over(values: pd.DataFrame, what: str, keys: list[str]) -> pd.DataFrame:
    """Mean over categories or data sets, ``partial`` where another model has more of them."""
    groups = values.groupby(keys, sort=False)
    means = groups["value"].mean().rename("value").to_frame()
    means["partial"] = groups["partial"].any() if "partial" in values else False
    counted = groups[what].nunique()
    comparable = [key for key in keys if key not in {"label", "knows", "seed"}]
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


def _markdown(rows: pd.DataFrame, metrics: pd.DataFrame, files: list[Path]) -> str:
    # In the order of the rows, whatever was sorted: the average is the last.
    data_sets = sorted(metrics["data_set"].unique(), key=[*rows["data_set"].unique(), AVERAGE].index)
    measured = [metric for metric in LINE_METRICS if metric in set(metrics["metric"])]
    parts = ["# Benchmark results", LEGEND]
    if len(data_sets) == 1:
        columns = {TITLES[metric]: (data_sets[0], metric) for metric in METRICS}
        parts += [f"## {data_sets[0]}", _table(metrics, columns)]
        columns = {TITLES[metric]: (data_sets[0], metric) for metric in ("image_AUROC", *LINE_METRICS)}
        parts += [LINE_LEGEND, _table(metrics, columns)] if measured else []
    else:
        for metric in (*METRICS, *measured):
            columns = {data_set: (data_set, metric) for data_set in data_sets if data_set != AVERAGE}
            parts += [f"## {TITLES[metric]}", _table(metrics, {**columns, AVERAGE: (AVERAGE, metric)})]
        parts += [LINE_LEGEND] if measured else []
    parts += [] if measured else [NO_LINE]
    parts += ["## Cost", _costs(rows), COSTS_LEGEND]
    failed = rows[rows["status"] != DONE]
    if len(failed):
        names = [escape_pipes(f"{r.label} / {r.data_set} / {r.category} / seed {r.seed}") for r in failed.itertuples()]
        jobs = [f"- {name}: {reason}" for name, reason in zip(names, failed["reason"], strict=True)]
        parts += ["## Failed jobs", "\n".join(jobs)]
    parts.append("## How this was measured")
    parts += ["\n".join([f"{file.name}:", "", *(f"- {line}" for line in read_provenance(file))]) for file in files]
    return "\n\n".join(parts) + "\n"


def _table(metrics: pd.DataFrame, columns: dict[str, tuple[str, str]]) -> str:
    """Models x columns, each column a pair of data set and metric."""
    cells = metrics.set_index(KEYS)
    # In the order of the metrics, which is that of what is known.
    models = list(dict.fromkeys(zip(metrics["label"], metrics["knows"], strict=True)))
    shown: dict[tuple[str, str], list[str]] = {model: [] for model in models}
    for data_set, metric in columns.values():
        found = {model: cells.loc[(*model, data_set, metric)] for model in models if (*model, data_set, metric) in cells.index}
        better = min if metric in LINE_METRICS else max
        for model in models:
            # Compared as printed: a difference that is not shown is no reason to be bold.
            rivals = [round(cell["mean"], 1) for (_, knows), cell in found.items() if knows == model[1]]
            shown[model].append(_format(found[model], better(rivals)) if model in found else NOT_AVAILABLE)
    rows = [[*model, *texts] for model, texts in shown.items() if set(texts) != {NOT_AVAILABLE}]
    return markdown_table(["Model", KNOWS, *columns], rows, left=2)


def _format(cell: Any, best: float) -> str:
    mean = f"{cell['mean']:.1f}"
    text = f"**{mean}**" if round(cell["mean"], 1) == best else mean
    spread = "" if pd.isna(cell["std"]) else f" ± {cell['std']:.1f}"
    return f"{text}{spread}{'†' if cell['partial'] else ''}"


def _costs(rows: pd.DataFrame) -> str:
    done = rows[rows["status"] == DONE].sort_values("knows", key=_knowledge_orders, kind="stable")
    groups = done.groupby(["label", "knows", "accelerator"], sort=False)
    costs = groups.agg(
        seeds=("seed", "nunique"),
        jobs=("key", "nunique"),
        speed=("images_per_second", "mean"),
        minutes=("training_minutes", "mean"),
        memory=("peak_memory_mb", "max"),
    )
    heading = ["Model", KNOWS, "On", "Seeds", "Jobs", "Images per second", "Training minutes", "Peak memory (MiB)"]
    table = [
        [*names, *(_number(value, digits) for value, digits in zip(row, (0, 0, 1, 1, 0), strict=True))]
        for names, *row in costs.itertuples()
    ]
    return markdown_table(heading, table, left=2)


def _number(value: float, digits: int) -> str:
    return NOT_AVAILABLE if pd.isna(value) else f"{value:.{digits}f}"
