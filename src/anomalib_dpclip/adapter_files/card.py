"""The card of adapters, as the Hugging Face hub shows it: what they are of, where they come from, how to use them."""

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from anomalib_dpclip.adapter_files.contents import AdapterFile
from anomalib_dpclip.adapter_files.licences import licence_of, strictest_licence
from anomalib_dpclip.files.markdown_table import markdown_table

_METRICS = ("image_AUROC", "image_AP", "pixel_AUROC", "pixel_AP", "pixel_AUPRO")
_COLUMNS = ("label", "model", "data_set", "category", "seed", "status", *_METRICS)
_MEASURED = "ok"


def model_card(content: AdapterFile, sha256: str, address: str, metrics: Path | None = None) -> str:
    """Write the card of adapters from their provenance.

    Args:
        content: The adapters.
        sha256: Of their file.
        address: What to give as ``--model.weights``: a file, or one on the hub.
        metrics: CSV of `dpclip benchmark` that measured them.

    Returns:
        Markdown with the hub's header.

    Raises:
        FileNotFoundError: If there is no such CSV.
        ValueError: If the adapters do not say what they learned from, or the CSV is none of a benchmark.
    """
    known = content.provenance
    if not known.fingerprint or not known.learned_from:
        raise ValueError(
            "these adapters do not say which backbone they belong to and what they learned from, so nobody can be told: a card "
            "is made of files that this package has trained"
        )
    sets = learned_sets(known.learned_from)
    names = [name for name, _ in sets]
    parts = [
        _header(known.backbone, names),
        f"# DP-CLIP adapters for {known.backbone}, learned from {', '.join(names)}",
        f"Zero-shot anomaly detection with `anomalib-dpclip`, a plugin of anomalib. CLIP itself ({known.pretrained}) is apart.",
        "## Use",
        f"```bash\nanomalib predict --model DPCLIP --model.weights {address} --model.class_name 'metal nut' --data photos\n```",
        "## What they learned from",
        _sources(sets),
        "Images of these sets are no test of these adapters.",
        "## Measured",
        "Not measured." if metrics is None else _measured(metrics),
        "## How they were made",
        markdown_table(["what", "value"], _making(content, sha256), left=2),
    ]
    return "\n\n".join(parts) + "\n"


def learned_sets(learned_from: list[str]) -> list[tuple[str, list[str]]]:
    """Data sets with their classes.

    Example:
        >>> learned_sets(["VisA/candle", "MVTecAD/cable", "MVTecAD/bottle"])
        [('MVTecAD', ['bottle', 'cable']), ('VisA', ['candle'])]
    """
    pairs = sorted(each.partition("/")[::2] for each in learned_from)
    return [(name, [each for _, each in classes]) for name, classes in groupby(pairs, key=lambda pair: pair[0])]


def _sources(sets: list[tuple[str, list[str]]]) -> str:
    rows = [[name, licence_of(name) or "not known here: ask its authors", ", ".join(classes)] for name, classes in sets]
    return markdown_table(["data set", "licence", "classes"], rows, left=3)


def _header(backbone: str, data_sets: list[str]) -> str:
    from huggingface_hub import ModelCardData

    licence = strictest_licence(data_sets)
    data = ModelCardData(
        license=licence or "other",
        license_name=None if licence else "see-what-they-learned-from",
        library_name="anomalib",
        tags=["anomaly-detection", "zero-shot", "dp-clip", backbone],
    )
    return f"---\n{data.to_yaml()}\n---"


def _measured(metrics: Path) -> str:
    """Mean over the categories of each data set, in percent; with several seeds mean and deviation over them."""
    lines = metrics.read_text(encoding="utf-8").splitlines()
    head = [line.removeprefix("# ") for line in lines if line.startswith("# ")]
    rows = pd.read_csv(metrics, skiprows=len(head))
    missing = [name for name in _COLUMNS if name not in rows]
    if missing:
        raise ValueError(f"{metrics} is no CSV of `dpclip benchmark`: it has no column {missing[0]}")
    rows = rows[(rows["status"] == _MEASURED) & (rows["model"] == "DPCLIP")]
    if not len(rows):
        raise ValueError(f"{metrics} has no row that measured DPCLIP and is sound")
    table = []
    for (label, data_set), part in rows.groupby(["label", "data_set"], sort=False):
        seeds = part.groupby("seed")[list(_METRICS)].mean() * 100
        cells = [_mean_and_deviation(seeds[name]) for name in _METRICS]
        table.append([str(label), str(data_set), str(part["category"].nunique()), str(len(seeds)), *cells])
    heading = ["model", "data set", "categories", "seeds", *(name.replace("_", " ") for name in _METRICS)]
    sources = "\n".join(f"- {line}" for line in head)
    return f"{markdown_table(heading, table, left=2)}\n\nIn percent, mean over the categories.\n\n{sources}"


def _mean_and_deviation(values: "pd.Series[float]") -> str:
    if values.isna().all():
        return "n/a"
    return f"{values.mean():.1f}" + (f" ± {values.std():.1f}" if len(values) > 1 else "")


def _making(content: AdapterFile, sha256: str) -> list[list[str]]:
    known = content.provenance
    values: dict[str, Any] = {
        "backbone": known.backbone,
        "CLIP weights": f"{known.pretrained}, fingerprint {known.fingerprint}",
        "epochs": known.epochs,
        "thresholds": f"of the images learned from ({known.calibration_domain})" if content.calibration else "none",
        "sha256": sha256,
        **known.architecture,
        **{name: value for name, value in known.hyper_parameters.items() if name not in {"backbone", "pretrained"}},
        **{f"version of {name}": version for name, version in known.versions.items()},
    }
    told = {name: value for name, value in values.items() if value is not None}
    return [[name, value if isinstance(value, str) else json.dumps(value)] for name, value in told.items()]
