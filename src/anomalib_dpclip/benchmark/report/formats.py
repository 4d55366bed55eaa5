"""Sections in Markdown, LaTeX and HTML."""

import html
import re
from collections.abc import Sequence

import pandas as pd

from anomalib_dpclip.benchmark.report.sections import Section
from anomalib_dpclip.files.markdown_table import escape_pipes, markdown_table

_BOLD, _CODE = re.compile(r"\*\*(.+?)\*\*"), re.compile(r"`(.+?)`")


def to_markdown(sections: Sequence[Section]) -> str:
    """A page of Markdown."""
    parts = ["# Benchmark results"]
    for section in sections:
        parts += [f"## {section.title}", *([section.text] if section.text else [])]
        parts += [markdown_table(section.heading, section.cells, section.left)] if section.cells else []
        parts += ["\n".join(f"- {escape_pipes(line)}" for line in section.lines)] if section.lines else []
    return "\n\n".join(parts) + "\n"


def to_latex(sections: Sequence[Section]) -> str:
    """Tables for a paper, with `booktabs`; text is a comment above each."""
    parts = ["% \\usepackage{booktabs}"]
    for section in sections:
        if section.cells:
            table = pd.DataFrame([*section.cells], columns=list(section.heading)).to_latex(
                index=False, escape=True, column_format="l" * section.left + "r" * (len(section.heading) - section.left)
            )
            table = _BOLD.sub(r"\\textbf{\1}", table).replace("±", r"$\pm$").replace("†", r"$^\dagger$")
            parts.append(f"% {section.title}. {' '.join(section.text.split())}\n{table}")
    return "\n".join(parts)


def to_html(sections: Sequence[Section]) -> str:
    """Sections of a page, its tables sortable by its script."""
    parts = []
    for section in sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        parts += [f"<p>{_marked(section.text)}</p>"] if section.text else []
        if section.cells:
            heading = _row(section.heading, section.left, "th")
            body = "".join(_row(row, section.left, "td") for row in section.cells)
            parts.append(f'<div class="wide"><table><thead>{heading}</thead><tbody>{body}</tbody></table></div>')
        parts += [f"<ul>{''.join(f'<li>{html.escape(line)}</li>' for line in section.lines)}</ul>"] if section.lines else []
    return "\n".join(parts)


def _row(cells: Sequence[str], left: int, tag: str) -> str:
    kinds = ["text" if place < left else "number" for place in range(len(cells))]
    return (
        f"<tr>{''.join(f'<{tag} class={kind}>{_marked(cell)}</{tag}>' for cell, kind in zip(cells, kinds, strict=True))}</tr>"
    )


def _marked(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", _BOLD.sub(r"<b>\1</b>", html.escape(text)))
