"""What a benchmark says at its end: a few columns of it, to be read in a terminal."""

import pandas as pd

from anomalib_dpclip.benchmark.report.summary import summarize
from anomalib_dpclip.benchmark.report.titles import AVERAGE, KNOWS, TITLES
from anomalib_dpclip.benchmark.rows import DONE

COLUMNS = ("image_AUROC", "pixel_AUROC", "pixel_AP", "pixel_AUPRO")
"""One metric of the images, and of the maps how they rank, how sharp they are, and whether they find every defect."""


def short_table(rows: pd.DataFrame) -> str:
    """Each model's means over categories, data sets and seeds, those that know least of the target first.

    Args:
        rows: As `read_rows` gives them.

    Returns:
        A table in percent; nothing if no job succeeded.
    """
    if not (rows["status"] == DONE).any():
        return ""
    metrics = summarize(rows)
    measured = metrics[~metrics["published"].astype(bool)]
    shown = measured[measured["data_set"] == AVERAGE] if AVERAGE in set(measured["data_set"]) else measured
    models = shown[["label", "knows"]].drop_duplicates()
    table = shown.pivot_table("mean", ["label", "knows"], "metric", sort=False).reindex(columns=list(COLUMNS))
    table = table.reindex(pd.MultiIndex.from_frame(models)).reset_index()
    table.columns = ["Model", KNOWS, *(TITLES[metric] for metric in COLUMNS)]
    return table.to_string(index=False, float_format="{:.1f}".format, na_rep="n/a")
