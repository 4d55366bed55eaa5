"""Files of adapters, from anywhere: this package's safetensors, Lightning's ``.ckpt``, the published ``.pth``. No code runs."""

import hashlib
import json
import pickle
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from anomalib_dpclip.adapter_files.adapter_file import ADAPTER_PREFIXES, PROVENANCE_KEY, UNADAPTED, AdapterFile, Provenance
from anomalib_dpclip.adapter_files.hub import local_file
from anomalib_dpclip.files.atomic_write import atomic_write
from anomalib_dpclip.files.plain_data import printable
from anomalib_dpclip.files.safe_load import load_plain

if TYPE_CHECKING:  # commands say what is wrong with their arguments before they import torch
    from torch import Tensor

_DIGEST_KEY = "sha256"
_CALIBRATION_PREFIX = "calibration."


def read_adapters(path: str | Path) -> AdapterFile:
    """Read an adapter file of any of the three formats, or one on the Hugging Face hub, see `hub_file`, without a model.

    Raises:
        FileNotFoundError: If there is no such file, or it cannot be fetched.
        ValueError: If it is none of them, or damaged.
    """
    file = local_file(path)
    from anomalib_dpclip.files.tensors import is_plain_tensor

    content = _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickled(file)
    # Pickled tensors may claim more than what is stored of them: writing them would fill a disk.
    tensors = [*content.tensors.values(), *content.calibration.values()]
    claimed = sum(value.numel() * value.element_size() for value in tensors if is_plain_tensor(value))
    if claimed > file.stat().st_size:
        raise ValueError(f"{file} claims {claimed:,} bytes of adapters, more than it is long: it is damaged, or made to harm")
    return content


def arguments_from_file(path: str | Path) -> dict[str, Any]:
    """Arguments of `DPCLIP` that a file was made with; a published ``.pth`` says nothing. Raises as `read_adapters`."""
    return read_adapters(path).provenance.model_arguments


def write_adapters(content: AdapterFile, path: str | Path) -> Path:
    """Write an adapter file, the whole file or none, and give its path; equal contents are equal files.

    ``.safetensors``, or ``.pth`` for the published format, which has no room for provenance and calibration; a ValueError for
    another suffix.
    """
    file = Path(path)
    if file.suffix not in {".safetensors", ".pth"}:
        raise ValueError(f"{file}: adapters are written as .safetensors, or .pth for the published format")

    import torch
    from safetensors.torch import save

    adapters, calibration = _on_cpu(content.tensors), _on_cpu(content.calibration)
    with atomic_write(file) as unfinished:
        if file.suffix == ".pth":
            torch.save({"epoch": content.provenance.epochs, "image_adapter": adapters}, unfinished)
        else:
            tensors = adapters | {_CALIBRATION_PREFIX + name: value for name, value in calibration.items()}
            values = asdict(content.provenance)
            values[_DIGEST_KEY] = _digest(values, tensors)
            # One entry: safetensors writes several in random order.
            unfinished.write_bytes(save(tensors, {PROVENANCE_KEY: json.dumps(values, sort_keys=True)}))
    return file


def tensor_digest(tensors: "Mapping[str, Tensor]") -> str:
    """Identifies adapters by their values alone, whatever file or model holds them."""
    return _digest({}, _on_cpu(tensors))[:16]


def _read_safetensors(path: Path) -> AdapterFile:
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
    adapters = {name: value for name, value in tensors.items() if not name.startswith(_CALIBRATION_PREFIX)}
    return AdapterFile(adapters, _under(_CALIBRATION_PREFIX, tensors), provenance)


def _read_pickled(path: Path) -> AdapterFile:
    content = _load_pickled(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no checkpoint: it holds a {type(content).__name__}")
    if isinstance(content.get("image_adapter"), Mapping):
        epoch = content.get("epoch", 0)
        return AdapterFile(dict(content["image_adapter"]), {}, Provenance(epochs=epoch if isinstance(epoch, int) else 0))
    if not isinstance(content.get("state_dict"), Mapping) or PROVENANCE_KEY not in content:
        raise ValueError(
            f"{path} is no DP-CLIP checkpoint: neither a Lightning checkpoint of this model nor a published one with "
            f"'image_adapter'"
        )
    if content.get("hyper_parameters", {}).get("weights") == UNADAPTED:
        raise ValueError(
            f"{path} is of CLIP without adapters, and holds none: say --model.weights {UNADAPTED}, with --ckpt_path {path} for "
            f"the thresholds in it"
        )
    provenance = Provenance.from_dict(content[PROVENANCE_KEY], path)
    threshold_basis = content[PROVENANCE_KEY].get("threshold_basis", "")
    if not isinstance(threshold_basis, str):
        raise ValueError(f"{path}: its provenance has a wrong 'threshold_basis'; is the file damaged?")
    state = {str(name): value for name, value in content["state_dict"].items()}
    return AdapterFile(
        tensors={name: value for name, value in _under("model.", state).items() if name.startswith(ADAPTER_PREFIXES)},
        calibration=_under("post_processor.auxiliary_calibration.", state),
        provenance=provenance,
        memory=_under("scorer_state.memory.", state),
        threshold_basis=printable(threshold_basis),
    )


def _load_pickled(path: Path) -> Any:
    try:
        return load_plain(path)
    except ValueError as error:
        if not isinstance(error.__cause__, pickle.UnpicklingError):
            raise
    # Checkpoints of other models hold anomalib's own types. Importing it takes seconds, which most files do not need.
    from anomalib.utils.serialization import anomalib_safe_globals

    with anomalib_safe_globals():
        return load_plain(path)


def _under(prefix: str, tensors: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Tensors whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _on_cpu(tensors: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _digest(provenance: Mapping[str, Any], tensors: "Mapping[str, Tensor]") -> str:
    """Hash of all that an adapter file holds: safetensors itself does not notice a flipped bit."""
    import torch

    digest = hashlib.sha256(json.dumps(provenance, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
