"""The report as one HTML page that needs nothing else: sortable tables, charts, and pictures of the worst mistakes."""

import base64
import html
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from anomalib_dpclip.benchmark.report.formats import to_html
from anomalib_dpclip.benchmark.report.sections import Section
from anomalib_dpclip.benchmark.report.summary import by_knowledge, done_rows
from anomalib_dpclip.data.images import read_image

SHOWN = 10
"""Mistakes of each kind that are shown of each model."""

SIDE = 112
"""Of a thumbnail, in pixels."""

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:88rem;padding:0 1rem;color:#222;background:#fff}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:14px;margin:.5rem 0 1rem}
th,td{padding:.25rem .7rem;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}
th{white-space:normal;cursor:pointer;border-bottom:2px solid #888;vertical-align:bottom}th:hover{background:#eef}
.text{text-align:left;white-space:normal;max-width:26rem}td.text:first-child{min-width:9rem}
th.up:after{content:" \\2191"}th.down:after{content:" \\2193"}
img.chart{max-width:100%}figure{display:inline-block;margin:.3rem;width:114px;vertical-align:top;font-size:12px;line-height:1.25}
figure img{border:1px solid #ccc}figcaption{overflow-wrap:anywhere}
"""

_SCRIPT = """
document.querySelectorAll("th").forEach(head=>head.onclick=()=>{
 const table=head.closest("table"),column=[...head.parentNode.children].indexOf(head),body=table.tBodies[0];
 const down=!head.classList.contains("down");
 table.querySelectorAll("th").forEach(other=>other.classList.remove("up","down"));head.classList.add(down?"down":"up");
 const key=row=>{const text=row.cells[column].textContent,number=parseFloat(text);return isNaN(number)?text:number};
 [...body.rows].sort((a,b)=>{const x=key(a),y=key(b),words=typeof x!=typeof y?(typeof x=="string"?1:-1):0;
  return words||(down?-1:1)*(x<y?-1:x>y?1:0)}).forEach(row=>body.append(row))});
"""


def worst_mistakes(rows: pd.DataFrame, images: pd.DataFrame, roots: Mapping[str, str]) -> str:
    """Pictures of the worst mistakes of each model, in its first seed and draw; nothing without scores of images.

    ``roots`` has the folder of the images of each job by its key.
    """
    parts = []
    for label, part in by_knowledge(done_rows(rows)).groupby("label", sort=False):
        tested = images[images["key"].isin(part["key"][part["run"] == part["run"].iloc[0]])].sort_values("score")
        kinds = {
            "Missed": tested[(tested["label"] == 1) & (tested["called"] == 0)],
            "False alarms": tested[(tested["label"] == 0) & (tested["called"] == 1)][::-1],
        }
        parts += [f"<h3>{html.escape(str(label))}</h3>"] if len(tested) else []
        for what, table in kinds.items() if len(tested) else ():
            shown = table.head(SHOWN).itertuples()
            pictures = "".join(_figure(Path(roots.get(row.key, ""), row.image), row.image, row.score) for row in shown)
            parts.append(f"<p>{what}: {len(table)}</p>{pictures}")
    text = f"Of each model the {SHOWN} worst of its first seed and draw, with their scores; the threshold is 0.5."
    return f"<h2>Worst mistakes</h2><p>{text}</p>{''.join(parts)}" if parts else ""


def html_page(sections: Sequence[Section], charts: Mapping[str, Figure], mistakes: str) -> str:
    """The whole page: tables, charts by their titles, and `worst_mistakes`."""
    png = {title: _inline("png", chart.savefig) for title, chart in charts.items()}
    pictures = "".join(f"<h2>{title}</h2><img class=chart alt='{title}' src='{source}'>" for title, source in png.items())
    title = "Benchmark results"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>\n{to_html(sections)}\n{pictures}\n{mistakes}<script>{_SCRIPT}</script></html>\n"
    )


def _figure(path: Path, name: str, score: float) -> str:
    """A thumbnail with its score and name."""
    shown = f"<div>no file {html.escape(path.name)} here</div>"
    if path.is_file():
        picture = read_image(path)
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        shown = f'<img alt="" src="{_inline("jpeg", lambda file: picture.save(file, "JPEG", quality=80))}">'
    return f"<figure>{shown}<figcaption>{score:.3f} {html.escape(name)}</figcaption></figure>"


def _inline(kind: str, save: Callable[[io.BytesIO], Any]) -> str:
    """A picture as part of the page."""
    save(data := io.BytesIO())
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"
