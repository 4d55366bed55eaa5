"""Files of results: a CSV and a Markdown table, each with the command, commit, versions and machine that made it."""

from pathlib import Path

import pandas as pd

from anomalib_dpclip.files.atomic_write import atomic_write
from anomalib_dpclip.files.markdown_table import markdown_table
from anomalib_dpclip.files.measured_by import measured_by


def write_results(table: pd.DataFrame, folder: Path, name: str, command: str) -> None:
    """Write ``name.csv`` and ``name.md``.

    Args:
        table: The measurement.
        folder: Where to.
        name: Name of the files.
        command: What to type to measure again.
    """
    facts = measured_by(command)
    header = "".join(f"# {key}: {value}\n" for key, value in facts.items())
    with atomic_write(folder / f"{name}.csv") as unfinished:
        unfinished.write_text(header + table.to_csv(index=False), encoding="utf-8")
    lines = [f"- {key}: {f'`{value}`' if key == 'command' else value}" for key, value in facts.items()]
    with atomic_write(folder / f"{name}.md") as unfinished:
        unfinished.write_text("\n".join([f"# {name}", "", *lines, "", table_of(table), ""]), encoding="utf-8")


def table_of(table: pd.DataFrame) -> str:
    """The measurement in Markdown, undefined values as n/a."""
    cells = table.astype(object).where(table.notna(), "n/a").astype(str)
    return markdown_table([*table.columns], cells.to_numpy().tolist(), left=len(table.columns))
