"""Pickled tensors from files of unknown origin: no code in them runs, and damage is noticed."""

import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

_EXPORTED = (".pt", ".onnx", ".xml", ".bin")

# What zipfile and the unpickler raise on bytes that they cannot make sense of.
_UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, pickle.UnpicklingError, RuntimeError, EOFError, OSError),
    *(LookupError, ValueError, AttributeError, TypeError, OverflowError),
)


def load_plain(path: Path) -> Any:
    """Load tensors and plain data that `torch.save` wrote, to the CPU; anything else is a ValueError that names the file."""
    import torch

    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
                # `torch.save` compresses nothing: what unpacks to more than the file is made to harm.
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                    raise zipfile.BadZipFile("it is compressed, which torch.save does not do: unpack it, or save it again")
                if sum(entry.file_size for entry in entries) > path.stat().st_size:
                    raise zipfile.BadZipFile("its parts are larger than the file")
                if damaged := archive.testzip():  # torch does not look at the checksums it writes
                    raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
        return torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        if "weights_only" in str(error):  # torch goes on to say how to load it all the same
            reason = "it holds more than tensors and plain data"
        if path.suffix in _EXPORTED:
            reason += ". If it is an exported model, give the checkpoint or the adapters that it was made of"
        raise ValueError(
            f"{path} cannot be read safely (truncated, damaged, of another kind, or with code in it): {reason}"
        ) from error
