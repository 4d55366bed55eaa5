"""This package's adapter files: safetensors with provenance and calibration, and a digest of all of it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from anomalib_dpclip.adapter_files.contents import AdapterFile
from anomalib_dpclip.adapter_files.provenance import PROVENANCE_KEY, Provenance
from anomalib_dpclip.files.atomic_write import atomic_write

_DIGEST_KEY = "sha256"
_CALIBRATION_PREFIX = "calibration."


def write_safetensors(content: AdapterFile, path: Path) -> None:
    """Write an adapter file of this package, the whole file or none; equal contents are equal files."""
    tensors = dict(content.tensors) | {_CALIBRATION_PREFIX + name: value for name, value in content.calibration.items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    values = asdict(content.provenance)
    values[_DIGEST_KEY] = _digest(values, tensors)
    with atomic_write(path) as unfinished:
        # One entry: safetensors writes several in random order.
        unfinished.write_bytes(save(tensors, {PROVENANCE_KEY: json.dumps(values, sort_keys=True)}))


def read_safetensors(path: Path) -> AdapterFile:
    """Read an adapter file of this package.

    Raises:
        ValueError: If it is none, or damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a safetensors file that can be read, it may be truncated: {error}") from error
    if PROVENANCE_KEY not in metadata:
        raise ValueError(f"{path} holds no DP-CLIP adapters (a safetensors file without their provenance)")
    try:
        values = json.loads(metadata[PROVENANCE_KEY])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: its provenance cannot be read; the file is damaged: {error}") from error
    provenance = Provenance.from_dict(values, path)  # first: a newer format may have another digest
    if values.pop(_DIGEST_KEY, None) != _digest(values, tensors):  # none at all: a damaged one is not called so
        raise ValueError(f"{path} is damaged: its contents are not those it was written with. Fetch it again")
    calibration = {
        name.removeprefix(_CALIBRATION_PREFIX): value for name, value in tensors.items() if name.startswith(_CALIBRATION_PREFIX)
    }
    adapters = {name: value for name, value in tensors.items() if not name.startswith(_CALIBRATION_PREFIX)}
    return AdapterFile(adapters, calibration, provenance)


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """Identifies adapters by their values alone, whatever file or model holds them."""
    return _digest({}, {name: value.detach().cpu().contiguous() for name, value in tensors.items()})[:16]


def _digest(provenance: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Hash of all that an adapter file holds: safetensors itself does not notice a flipped bit."""
    digest = hashlib.sha256(json.dumps(provenance, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
