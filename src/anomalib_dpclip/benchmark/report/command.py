"""`dpclip report`: what benchmark rows say, in the terminal or as a folder of Markdown, LaTeX, charts and one HTML page."""

from collections.abc import Sequence
from pathlib import Path

from anomalib_dpclip.files.atomic_write import atomic_write


def report(
    files: Sequence[Path],
    out: Path | None = None,
    paired: bool = False,
    first: str | None = None,
    second: str | None = None,
) -> None:
    """Tabulate and draw benchmark results, or compare two rows of them.

    Args:
        files: CSV files that `dpclip benchmark` wrote.
        out: Folder for report.md, report.tex, report.html and the charts. By default the Markdown is printed.
        paired: Say in a sentence whether the difference of two rows is more than chance.
        first: Label of the first of the two rows, where its file has several.
        second: Label of the second one.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: A file is not one of benchmark results, none of its jobs succeeded, or two rows cannot be compared.
    """
    from anomalib_dpclip.benchmark.rows import read_beside, read_results, read_rows

    rows = read_rows(*files)  # what is wrong with a file is said before imports that take seconds
    if paired:
        from anomalib_dpclip.benchmark.report.paired import compare

        print(compare(files, first, second))  # noqa: T201 printing is what was asked for
        return
    import pandas as pd

    from anomalib_dpclip.benchmark.report.formats import to_latex, to_markdown
    from anomalib_dpclip.benchmark.report.sections import sections
    from anomalib_dpclip.benchmark.report.summary import done_rows, summarize

    metrics = summarize(rows)
    images, shift = (pd.concat([read_beside(file, what) for file in files]) for what in ("images", "shift"))
    found = sections(rows, metrics, images, shift, files)
    if out is None:
        print(to_markdown(found))  # noqa: T201
        return
    from anomalib_dpclip.benchmark.report.charts import PANELS, category_chart, overview_chart, shift_chart
    from anomalib_dpclip.benchmark.report.html_page import html_page, worst_mistakes

    # Of good images alone no AUROC is defined, and there are no bars and dots to draw.
    has_auroc = done_rows(rows)[list(PANELS)].notna().any(axis=None)
    charts = {"Overview": overview_chart(metrics), "Categories": category_chart(rows)} if has_auroc else {}
    charts |= {"Corrupted images": shift_chart(rows, shift)} if len(shift) else {}
    names = {title: f"{title.split()[0].lower()}.png" for title in charts}
    pictures = "\n\n".join(f"![{title}]({name})" for title, name in names.items())
    roots = {result.row["key"]: result.root for file in files for result in read_results(file)}
    texts = {
        "report.md": f"{to_markdown(found)}\n{pictures}\n",
        "report.tex": to_latex(found),
        "report.html": html_page(found, charts, worst_mistakes(rows, images, roots)),
    }
    for name, text in texts.items():
        with atomic_write(out / name) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    for title, chart in charts.items():
        with atomic_write(out / names[title]) as unfinished:
            chart.savefig(unfinished)
    print(f"Wrote {', '.join([*texts, *names.values()])} to {out}")  # noqa: T201
