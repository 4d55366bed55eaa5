"""The command `dpclip backbones`: what open_clip knows, and what of it the method can stand on."""

import json as json_format
from importlib.metadata import files, version
from pathlib import Path

from anomalib_dpclip.clip.pretraining import MINI

TABLE = Path(__file__).with_name("backbones.json")
"""Made by `python -m scripts.backbones_table`: building all models to count their parameters takes a while."""

_LINE = "{:<32} {:>8} {:>8} {:>5} {:>5}  {}"


def backbones(json: bool = False, all: bool = False) -> None:  # noqa: A002  (the command's options)
    """List the backbones that fit, with their pretrained weights, size and licence.

    Sizes and statistics are those of open_clip's and timm's own tables; licences are what the weights' publishers state.

    Args:
        json: Print JSON, with the image statistics and activation of each tag, instead of a table.
        all: List those that are refused too, with the reason.
    """
    table = json_format.loads(TABLE.read_text(encoding="utf-8"))
    installed = {MINI} | installed_models()
    rows = [row for row in table["rows"] if row["backbone"] in installed and (all or row["refused"] is None)]
    if json:
        print(json_format.dumps(rows, indent=1))  # noqa: T201
        return
    print(_LINE.format("backbone", "vision", "total", "patch", "image", "pretrained (licence)"))  # noqa: T201
    for row in rows:
        if row["refused"]:
            print(_LINE.format(row["backbone"], "", "", "", "", f"refused: it {row['refused']}"))  # noqa: T201
            continue
        tags = [f"{tag['tag']} ({tag['licence'] or 'not stated'})" for tag in row["pretrained"]] or ["none: give a file"]
        sizes = (*(f"{row[name] / 1e6:.1f}M" for name in ("vision_parameters", "parameters")), row["patch"], row["image_size"])
        print(_LINE.format(row["backbone"], *sizes, ", ".join(tags)))  # noqa: T201
    if newer := installed - {row["backbone"] for row in table["rows"]}:
        print(  # noqa: T201
            f"Not in this table, which is of open_clip {table['open_clip']} (installed is {version('open_clip_torch')}): "
            f"{', '.join(sorted(newer))}"
        )


def installed_models() -> set[str]:
    """Names of the installed open_clip's models, from its files: importing it takes seconds."""
    return {Path(str(file)).stem for file in files("open_clip_torch") or () if file.parent.name == "model_configs"}
