"""The command `dpclip adapters`: shows what an adapter file holds, and converts it."""

import hashlib
import json
from itertools import groupby
from pathlib import Path
from typing import Any

from torch import Tensor

from anomalib_dpclip.adapter_files.contents import AdapterFile, is_plain_tensor
from anomalib_dpclip.adapter_files.own_format import tensor_digest
from anomalib_dpclip.adapter_files.read_and_write import read_adapters, write_adapters
from anomalib_dpclip.files.plain_data import printable
from anomalib_dpclip.method.torch_model import DPCLIPModel

_UNKNOWN = "unknown"


def adapters(file: Path, to: Path | None = None) -> None:
    """Show what a file of adapters holds: their backbone, what they learned from, and its hash.

    Nothing in the file is executed: pickled files are read as tensors and plain data only.

    Args:
        file: Adapters: ``.safetensors`` of this package, a Lightning ``.ckpt``, or a published ``.pth``.
        to: Write the adapters to this file too: ``.safetensors``, or ``.pth`` for the published format, which has no room
            for their provenance and calibration.

    Raises:
        FileNotFoundError: If there is no such file.
        FileExistsError: If the file to write is there already.
        ValueError: If the file holds no adapters or is damaged, or the one to write has another suffix.
    """
    content = read_adapters(file)
    foreign = [
        name
        for name, value in content.tensors.items()
        if not (isinstance(name, str) and is_plain_tensor(value)) or not name.startswith(DPCLIPModel.adapter_prefixes)
    ]
    if foreign:
        raise ValueError(f"{file} holds more than adapters, such as {foreign[0]!r}: it is damaged or of another model")
    for key, value in _description(file, content).items():
        print(f"{key:<16} {printable(value)}")  # noqa: T201
    if to is not None:
        if to.exists():
            raise FileExistsError(f"{to} is there already: delete it, or give another name")
        print(f"{'written':<16} {write_adapters(content, to)}")  # noqa: T201


def _description(file: Path, content: AdapterFile) -> dict[str, str]:
    """What there is to know about the adapters, in words."""
    known = content.provenance
    values = sum(tensor.numel() for tensor in content.tensors.values())
    return {
        "file": f"{file} ({file.stat().st_size / 1e6:.1f} MB)",
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "backbone": known.backbone or _UNKNOWN,
        "CLIP weights": f"{known.pretrained or _UNKNOWN}, fingerprint {known.fingerprint or _UNKNOWN}",
        "images": _listed(known.preprocessing) if known.preprocessing else _UNKNOWN,
        "adapters": f"{len(content.tensors)} tensors, {values:,} values, digest {tensor_digest(content.tensors)}",
        "architecture": _listed(known.architecture),
        "learned from": _data_sets(known.learned_from),
        "epochs": str(known.epochs) if known.epochs else _UNKNOWN,
        "calibration": _calibration(content),
        **({"thresholds": content.promise} if content.promise else {}),
        **({"photos": _memory(content.memory)} if content.memory else {}),
        "hyper-parameters": _listed(known.hyper_parameters),
        "versions": _listed(known.versions),
    }


def _calibration(content: AdapterFile) -> str:
    """What the adapters' own thresholds are of, and what they hold to."""
    if not content.calibration:
        return "none"
    return content.provenance.calibration_promise or "of the images learned from"


def _data_sets(learned_from: list[str]) -> str:
    """Each data set once, with its classes.

    Example:
        >>> _data_sets(["MVTecAD/bottle", "MVTecAD/cable", "VisA/candle"])
        'MVTecAD (bottle, cable); VisA (candle)'
    """
    pairs = sorted(each.partition("/")[::2] for each in learned_from)
    sets = groupby(pairs, key=lambda pair: pair[0])
    return "; ".join(f"{name} ({', '.join(each for _, each in classes)})" for name, classes in sets) or _UNKNOWN


def _memory(memory: dict[str, Tensor]) -> str:
    """What is remembered of photos of a target."""
    taps, tokens, width = memory["tokens"].shape
    known = f"{int(memory['photos'])} of a target: {tokens:,} tokens of {width} values at each of {taps} taps"
    return f"{known}, share {float(memory['share']):.2f} beside the text"


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {json.dumps(value)}" for name, value in values.items()) or _UNKNOWN
