"""Files of results: a CSV and a Markdown table, each with the command, commit, versions and machine that made it."""

from pathlib import Path

import pandas as pd

from anomalib_dpclip.files.measured_by import measured_by


def write_results(table: pd.DataFrame, folder: Path, name: str, command: str) -> None:
    """Write ``name.csv`` and ``name.md``.

    Args:
        table: The measurement.
        folder: Where to.
        name: Name of the files.
        command: What to type to measure again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    facts = measured_by(command)
    header = "".join(f"# {key}: {value}\n" for key, value in facts.items())
    (folder / f"{name}.csv").write_text(header + table.to_csv(index=False), encoding="utf-8")
    lines = [f"- {key}: {f'`{value}`' if key == 'command' else value}" for key, value in facts.items()]
    (folder / f"{name}.md").write_text("\n".join([f"# {name}", "", *lines, "", markdown_table(table), ""]), encoding="utf-8")


def markdown_table(table: pd.DataFrame) -> str:
    """A Markdown table; undefined metrics as n/a."""
    cells = table.astype(object).where(table.notna(), "n/a").astype(str)
    rows = [list(table.columns), ["---"] * len(table.columns), *cells.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)
