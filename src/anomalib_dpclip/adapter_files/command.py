"""The command `dpclip adapters`: shows what an adapter file holds, converts it, and shares it."""

import json
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from anomalib_dpclip.adapter_files.adapter_file import ADAPTER_PREFIXES, AdapterFile
from anomalib_dpclip.adapter_files.hub import DEFAULT_NAME, local_file
from anomalib_dpclip.adapter_files.hub import push as push_to_hub
from anomalib_dpclip.adapter_files.read_and_write import read_adapters, tensor_digest, write_adapters
from anomalib_dpclip.files.atomic_write import atomic_write
from anomalib_dpclip.files.plain_data import printable

_UNKNOWN = "unknown"


def adapters(
    file: Path, to: Path | None = None, card: bool = False, push: str | None = None, metrics: Path | None = None
) -> None:
    """Show what a file of adapters holds: their backbone, what they learned from, and its hash.

    Nothing in the file is executed: pickled files are read as tensors and plain data only.

    Args:
        file: Adapters: ``.safetensors`` of this package, a Lightning ``.ckpt``, a published ``.pth``, or
            ``hf://owner/name[@revision][/file.safetensors]``.
        to: Write the adapters to this file too: ``.safetensors``, or ``.pth`` for the published format, which has no room
            for their provenance and calibration.
        card: Write a card for sharing them too, in Markdown beside the file: what they learned from, under which licences,
            how they were made, and what they reach.
        push: Upload them and their card to this repository, ``owner/name``, of the Hugging Face hub. A new one is private.
        metrics: CSV of `dpclip benchmark`, for the card.
    """
    local = local_file(file)
    content = read_adapters(local)
    from anomalib_dpclip.files.tensors import is_plain_tensor

    for name, value in content.tensors.items():
        if not (isinstance(name, str) and is_plain_tensor(value)) or not name.startswith(ADAPTER_PREFIXES):
            raise ValueError(f"{file} holds more than adapters, such as {name!r}: it is damaged or of another model")
    for key, text in _description(local, content).items():
        print(f"{key:<16} {printable(text)}")  # noqa: T201
    if to is not None:
        _require_free(to)
        print(f"{'written':<16} {write_adapters(content, to)}")  # noqa: T201
    if card:
        path = (local if to is None else to).with_suffix(".md")
        _require_free(path)
        with atomic_write(path) as unfinished:
            unfinished.write_text(_card(content, local, str(to or file), metrics), encoding="utf-8")
        print(f"{'card':<16} {path}")  # noqa: T201
    if push is not None:
        with TemporaryDirectory() as folder:
            pushed = write_adapters(content, Path(folder) / DEFAULT_NAME)
            address = push_to_hub(pushed, _card(content, pushed, f"hf://{push}", metrics), push)
        print(f"{'pushed':<16} {address}")  # noqa: T201


def _card(content: AdapterFile, file: Path, address: str, metrics: Path | None) -> str:
    from anomalib_dpclip.adapter_files.card import model_card  # takes pandas, which whoever looks into a file need not wait for

    return model_card(content, sha256(file.read_bytes()).hexdigest(), address, metrics)


def _require_free(path: Path) -> None:
    if path.exists():
        raise FileExistsError(f"{path} is there already: delete it, or give another name")


def _description(file: Path, content: AdapterFile) -> dict[str, str]:
    known = content.provenance
    values = sum(tensor.numel() for tensor in content.tensors.values())
    text_weights = [f"{weight} beside {count}" for counts in known.text_weights.values() for count, weight in counts.items()]
    layers = [value for name, value in content.memory.items() if name.startswith("layer")]
    tokens = ", ".join(f"{len(each):,} of {each.shape[1]} values" for each in layers)
    optional = {
        "text weights": f"{', '.join(text_weights)} good photos, learned from the auxiliary set" if text_weights else "",
        "thresholds": content.threshold_basis,
        "photos": f"{int(content.memory['photos'])} of a target: tokens of {len(layers)} layers, {tokens}" if layers else "",
        "arguments": _listed(known.arguments) if known.arguments else "",
    }
    epochs = f"{known.epochs} of {known.max_epochs}" if known.epochs < known.max_epochs else str(known.epochs)
    return {
        "file": f"{file} ({file.stat().st_size / 1e6:.1f} MB)",
        "sha256": sha256(file.read_bytes()).hexdigest(),
        "backbone": known.backbone or _UNKNOWN,
        "CLIP weights": f"{known.clip_weights}, fingerprint {known.fingerprint or _UNKNOWN}",
        "images": _listed(known.preprocessing),
        "adapters": f"{len(content.tensors)} tensors, {values:,} values, digest {tensor_digest(content.tensors)}",
        "architecture": _listed(known.architecture),
        "learned from": "; ".join(f"{name} ({', '.join(each)})" for name, each in known.data_sets.items()) or _UNKNOWN,
        "epochs": epochs if known.epochs else _UNKNOWN,
        "calibration": (known.calibration_basis or "of the images learned from") if content.calibration else "none",
        **{name: text for name, text in optional.items() if text},
        "hyper-parameters": _listed(known.hyper_parameters),
        "versions": _listed(known.versions),
    }


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {json.dumps(value)}" for name, value in values.items()) or _UNKNOWN
