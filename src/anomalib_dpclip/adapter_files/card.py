"""The card of adapters, as the Hugging Face hub shows it."""

import json
from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd

from anomalib_dpclip.adapter_files.adapter_file import AdapterFile
from anomalib_dpclip.data_sets.names import data_set_key
from anomalib_dpclip.files.markdown_table import markdown_table

_NON_COMMERCIAL = "cc-by-nc-sa-4.0"
_STRICTEST_LAST = ("apache-2.0", "cc-by-4.0", _NON_COMMERCIAL)
_LICENCES = {"surfaces": "apache-2.0", "visa": "cc-by-4.0"} | dict.fromkeys(("mvtec", "mpdd", "btad", "bmad"), _NON_COMMERCIAL)
"""Of data sets by `data_set_key`, in the hub's spelling, as their authors and anomalib state them."""

_METRICS = ("image_AUROC", "image_AP", "pixel_AUROC", "pixel_AP", "pixel_AUPRO")
_COLUMNS = ("label", "model", "data_set", "category", "seed", "status", *_METRICS)


def model_card(content: AdapterFile, sha256: str, address: str, metrics: Path | None = None) -> str:
    """The card of adapters from their provenance, in Markdown with the hub's header.

    Args:
        content: The adapters.
        sha256: Hash of their file.
        address: Value of ``--model.weights`` that names them: a file, or one on the hub.
        metrics: CSV of `dpclip benchmark` that measured them.
    """
    from huggingface_hub import ModelCard, ModelCardData

    known = content.provenance
    if not known.fingerprint or not known.learned_from:
        raise ValueError(
            "these adapters do not say which backbone they belong to and what they learned from, so nobody can be told: a card "
            "is made of files that this package has trained"
        )
    licences = [licence_of(each) or "" for each in known.data_sets]
    licence = max(licences, key=_STRICTEST_LAST.index) if all(licences) else None
    unknown = "not known here: ask its authors"
    sources = [[name, licence_of(name) or unknown, ", ".join(classes)] for name, classes in known.data_sets.items()]
    card = ModelCard.from_template(
        ModelCardData(
            license=licence or "other",
            license_name=None if licence else "see-what-they-learned-from",
            library_name="anomalib",
            tags=["anomaly-detection", "zero-shot", "dp-clip", known.backbone],
        ),
        template_path=str(Path(__file__).with_name("card_template.md")),
        known=known,
        address=address,
        names=", ".join(known.data_sets),
        sources=markdown_table(["data set", "licence", "classes"], sources, left=3),
        measured="Not measured." if metrics is None else _measured(metrics),
        making=markdown_table(["what", "value"], _making(content, sha256), left=2),
    )
    return f"{str(card).rstrip()}\n"


def licence_of(data_set: str) -> str | None:
    """Licence of a data set; ``None`` if it is not known here.

    Example:
        >>> licence_of("VisA"), licence_of("MVTecAD"), licence_of("my photos")
        ('cc-by-4.0', 'cc-by-nc-sa-4.0', None)
    """
    return _LICENCES.get(data_set_key(data_set))


def _measured(metrics: Path) -> str:
    """Mean over the categories of each data set, in percent; with several seeds mean and deviation over them."""
    lines = metrics.read_text(encoding="utf-8").splitlines()
    head = [line.removeprefix("# ") for line in lines if line.startswith("# ")]
    rows = pd.read_csv(metrics, skiprows=len(head))
    missing = [name for name in _COLUMNS if name not in rows]
    if missing:
        raise ValueError(f"{metrics} is no CSV of `dpclip benchmark`: it has no column {missing[0]}")
    rows = rows[(rows["status"] == "ok") & (rows["model"] == "DPCLIP")]
    if not len(rows):
        raise ValueError(f"{metrics} has no row that measured DPCLIP and is sound")
    table = []
    for (label, data_set), part in rows.groupby(["label", "data_set"], sort=False):
        seeds = part.groupby("seed")[list(_METRICS)].mean() * 100
        numbers = [str(part["category"].nunique()), str(len(seeds))]
        for mean, deviation in zip(seeds.mean(), seeds.std(), strict=True):
            numbers.append("n/a" if isnan(mean) else f"{mean:.1f}" if isnan(deviation) else f"{mean:.1f} ± {deviation:.1f}")
        table.append([str(label), str(data_set), *numbers])
    heading = ["model", "data set", "categories", "seeds", *(name.replace("_", " ") for name in _METRICS)]
    sources = "\n".join(f"- {line}" for line in head)
    return f"{markdown_table(heading, table, left=2)}\n\nIn percent, mean over the categories.\n\n{sources}"


def _making(content: AdapterFile, sha256: str) -> list[list[str]]:
    known = content.provenance
    values: dict[str, Any] = {
        "backbone": known.backbone,
        "CLIP weights": f"{known.clip_weights}, fingerprint {known.fingerprint}",
        "epochs": known.epochs,
        "thresholds": f"of the images learned from ({known.calibration_domain})" if content.calibration else "none",
        "sha256": sha256,
        **known.architecture,
        **{name: value for name, value in known.hyper_parameters.items() if name not in {"backbone", "pretrained"}},
        **known.arguments,
        **{f"version of {name}": version for name, version in known.versions.items()},
    }
    said = {name: value for name, value in values.items() if value is not None}
    return [[name, value if isinstance(value, str) else json.dumps(value)] for name, value in said.items()]
