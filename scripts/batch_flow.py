"""The picture of `docs/architecture.md`: how a batch flows through training and through prediction.

Run `python -m scripts.batch_flow` after changing it; a test compares the picture with what this makes.
"""

from html import escape
from pathlib import Path
from typing import NamedTuple

PICTURE = Path(__file__).parents[1] / "docs" / "batch_flow.svg"

WIDTH, HEIGHT = 1280, 640
BOX = (220, 92)
COLUMNS = (30, 280, 530, 780, 1030)
ROWS = {"training": 78, "shared": 270, "prediction": 462}
COLORS = {"training": "#fde9c9", "shared": "#dfe7f3", "prediction": "#d8efdc"}


class Box(NamedTuple):
    """A step: where it stands, what it is, where its code is, and what leaves it.

    Attributes:
        column: Index into `COLUMNS`.
        row: Key of `ROWS`.
        title: What happens.
        lines: Room and module, shapes.
        part: Whose colour it has; by default its row's.
    """

    column: int
    row: str
    title: str
    lines: tuple[str, ...]
    part: str | None = None


BOXES = {
    "auxiliary": Box(0, "training", "Auxiliary set", ("auxiliary/", "images (B, 3, H, W)", "masks (B, H, W), labels (B)")),
    "prototypes": Box(2, "training", "Prototypes P_N, P_A", ("method/prototypes", "(E) each")),
    "objective": Box(3, "training", "Objective", ("method/objective", "L_cls + sum L_seg", "+ 0.1 sum L_dec")),
    "learning": Box(
        4, "training", "Optimiser step", ("model/training", "moves adapters, projectors", "and then the prototypes")
    ),
    "tower": Box(1, "shared", "Frozen tower, adapters", ("clip/towers", "method/adapters", "four taps (B, L, C)")),
    "projectors": Box(2, "shared", "Projectors", ("method/adapters", "tap tokens (B, L, E)", "detection feature (B, E)")),
    "anchors": Box(3, "shared", "Text anchors T_N, T_A", ("method/prompting", "clip/text_tower", "(E, 2), of the class name")),
    "calibration": Box(
        4,
        "shared",
        "Calibration",
        ("post_processing/calibration", "ranges and thresholds of", "validation images"),
        "prediction",
    ),
    "target": Box(
        0, "prediction", "Target", ("data/ or anomalib's own", "pre_processing/pre_processor", "images (B, 3, H, W)")
    ),
    "maps": Box(3, "prediction", "Raw maps and scores", ("scorers/scorer", "maps (B, H, W), scores (B),", "in [0, 1]")),
    "post": Box(
        4, "prediction", "Post-processor", ("post_processing/post_processor", "fused scores, labels, masks", "threshold at 0.5")
    ),
}

ARROWS = (
    ("auxiliary", "tower"),
    ("target", "tower"),
    ("tower", "projectors"),
    ("projectors", "objective"),
    ("projectors", "maps"),
    ("anchors", "objective"),
    ("anchors", "maps"),
    ("prototypes", "objective"),
    ("objective", "learning"),
    ("maps", "post"),
    ("maps", "calibration"),
    ("calibration", "post"),
)


def batch_flow() -> str:
    """The picture, as SVG."""
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" role="img">',
        "<title>How a batch flows through training (top) and prediction (bottom)</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">',
        '<path d="M0 0 L8 4 L0 8 z" fill="#444"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    x, below = COLUMNS[0], ROWS["prediction"] + BOX[1]
    captions = [
        _text(x, ROWS["training"] - 26, "Training: on the auxiliary set", 20, bold=True),
        _text(x, ROWS["shared"] + BOX[1] // 2 + 6, "Both", 20, bold=True),
        _text(x, below + 44, "Validation, test, prediction, export: on the target", 20, bold=True),
    ]
    arrows = [_arrow(BOXES[start], BOXES[end]) for start, end in ARROWS]
    return "\n".join([*head, *captions, *arrows, *map(_box, BOXES.values()), "</svg>", ""])


def _box(box: Box) -> str:
    x, y = COLUMNS[box.column], ROWS[box.row]
    frame = (
        f'<rect x="{x}" y="{y}" width="{BOX[0]}" height="{BOX[1]}" rx="8" fill="{COLORS[box.part or box.row]}" stroke="#444"/>'
    )
    lines = [_text(x + 12, y + 46 + 18 * index, line, 14) for index, line in enumerate(box.lines)]
    return "\n".join([frame, _text(x + 12, y + 24, box.title, 16, bold=True), *lines])


def _text(x: int, y: int, text: str, size: int, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x}" y="{y}" font-size="{size}"{weight} fill="#111">{escape(text)}</text>'


def _arrow(start: Box, end: Box) -> str:
    """A line between the facing sides of two boxes."""
    if start.column == end.column:
        x = COLUMNS[start.column] + BOX[0] // 2
        down = ROWS[end.row] > ROWS[start.row]
        points = (x, ROWS[start.row] + (BOX[1] if down else 0), x, ROWS[end.row] + (0 if down else BOX[1]))
    else:
        y1, y2 = ROWS[start.row] + BOX[1] // 2, ROWS[end.row] + BOX[1] // 2
        points = (COLUMNS[start.column] + BOX[0], y1, COLUMNS[end.column], y2)
    return '<line x1="{}" y1="{}" x2="{}" y2="{}" stroke="#444" stroke-width="1.5" marker-end="url(#tip)"/>'.format(*points)


if __name__ == "__main__":
    PICTURE.write_text(batch_flow(), encoding="utf-8")
    print(f"wrote {PICTURE}")  # noqa: T201
