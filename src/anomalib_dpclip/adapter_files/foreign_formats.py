"""Adapters in other formats: inside Lightning checkpoints, and the published ``.pth``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from anomalib_dpclip.adapter_files.contents import AdapterFile
from anomalib_dpclip.adapter_files.provenance import PROVENANCE_KEY, THRESHOLD_BASIS_KEY, Provenance
from anomalib_dpclip.files.atomic_write import atomic_write
from anomalib_dpclip.files.plain_data import printable
from anomalib_dpclip.files.safe_load import load_plain
from anomalib_dpclip.method.torch_model import DPCLIPModel
from anomalib_dpclip.method.unadapted import UNADAPTED

MEMORY_PREFIX = "model.memory."
"""Beginning of the names of a checkpoint's memory of photos of a target."""

CORRECTIONS_PREFIX = "model.corrections."
"""Beginning of the names of a checkpoint's corrections."""


def write_published(content: AdapterFile, path: Path) -> None:
    """Write the published format, the whole file or none; it has no room for provenance and calibration."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in content.tensors.items()}
    with atomic_write(path) as unfinished:
        torch.save({"epoch": content.provenance.epochs, "image_adapter": tensors}, unfinished)


def read_pickled(path: Path) -> AdapterFile:
    """Read a published ``.pth`` or a Lightning checkpoint, unpickling tensors and plain data only.

    Raises:
        ValueError: If it is neither, or damaged.
    """
    from anomalib.utils.serialization import anomalib_safe_globals

    with anomalib_safe_globals():
        content = load_plain(path)
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
    state = {str(name): value for name, value in content["state_dict"].items()}
    prefixes = DPCLIPModel.adapter_prefixes
    adapters = {
        name.removeprefix("model."): value for name, value in state.items() if name.removeprefix("model.").startswith(prefixes)
    }
    calibration_prefix = "post_processor.auxiliary_calibration."
    calibration = {
        name.removeprefix(calibration_prefix): value for name, value in state.items() if name.startswith(calibration_prefix)
    }
    memory = {name.removeprefix(MEMORY_PREFIX): value for name, value in state.items() if name.startswith(MEMORY_PREFIX)}
    provenance = Provenance.from_dict(content[PROVENANCE_KEY], path)
    corrections = len(state.get(CORRECTIONS_PREFIX + "blame", ()))
    return AdapterFile(
        adapters, calibration, provenance, memory, threshold_basis_in(content[PROVENANCE_KEY], path), corrections
    )


def threshold_basis_in(saved: Mapping[str, Any], path: Path) -> str:
    """What the thresholds of a checkpoint hold to; empty if an earlier version wrote it.

    Args:
        saved: What the checkpoint has under `PROVENANCE_KEY`.
        path: Of the checkpoint, for the message.

    Raises:
        ValueError: If it is no text.
    """
    threshold_basis = saved.get(THRESHOLD_BASIS_KEY, "")
    if not isinstance(threshold_basis, str):
        raise ValueError(f"{path}: its provenance has a wrong {THRESHOLD_BASIS_KEY!r}; is the file damaged?")
    return printable(threshold_basis)
