"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def markdown_table(heading: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table in GitHub's Markdown, without a line break at its end.

    Args:
        heading: Names of the columns.
        rows: Cells, as many a row as there are columns.
        left: How many columns, from the first, are text and aligned left; the others are numbers and aligned right.
    """
    rule = ["---" if column < left else "---:" for column in range(len(heading))]
    lines = [map(escape_pipes, heading), rule, *(map(escape_pipes, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escape_pipes(text: str) -> str:
    """Write a text so that no pipe in it ends a cell."""
    return text.replace("|", "\\|")
