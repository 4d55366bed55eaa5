"""Pickled tensors from files of unknown origin: no code in them runs, and damage is noticed."""

import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

# What zipfile and the unpickler raise on bytes that they cannot make sense of.
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    LookupError,
    ValueError,
    AttributeError,
    TypeError,
    OverflowError,
)


def load_plain(path: Path) -> Any:
    """Load tensors and plain data that `torch.save` wrote, to the CPU.

    Args:
        path: The file.

    Raises:
        ValueError: If it is anything else, or damaged; names the file.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():  # torch does not look at the checksums it writes
                    raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
        return torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "weights_only" in str(error):  # torch goes on to say how to load it all the same
            reason = "it holds more than tensors and plain data"
        raise ValueError(
            f"{path} cannot be read safely (truncated, damaged, of another kind, or with code in it): {reason}"
        ) from error
