"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def markdown_table(heading: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table in GitHub's Markdown, without a line break at its end; its first `left` columns are text, others numbers."""
    rule = ["---" if column < left else "---:" for column in range(len(heading))]
    lines = [map(escape_pipes, heading), rule, *(map(escape_pipes, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escape_pipes(text: str) -> str:
    """A text in which no pipe ends a cell."""
    return text.replace("|", "\\|")
