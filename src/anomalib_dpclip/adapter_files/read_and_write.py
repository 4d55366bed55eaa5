"""Files of adapters in any format, read and written without a model.

They come from anywhere: nothing in them is executed, and whatever cannot be read is one error that names the file.
"""

from pathlib import Path

from anomalib_dpclip.adapter_files.contents import AdapterFile
from anomalib_dpclip.adapter_files.foreign_formats import read_pickled, write_published
from anomalib_dpclip.adapter_files.own_format import read_safetensors, write_safetensors


def write_adapters(content: AdapterFile, path: str | Path) -> Path:
    """Write an adapter file, the whole file or none.

    Args:
        content: What to write.
        path: ``.safetensors``, or ``.pth`` for the published format.

    Returns:
        The path.

    Raises:
        ValueError: For another suffix.
    """
    path = Path(path)
    if path.suffix not in {".safetensors", ".pth"}:
        raise ValueError(f"{path}: adapters are written as .safetensors, or .pth for the published format")
    write = write_safetensors if path.suffix == ".safetensors" else write_published
    write(content, path)
    return path


def read_adapters(path: str | Path) -> AdapterFile:
    """Read an adapter file of any of the three kinds without a model.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none of them, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no adapter file {path}")
    return read_safetensors(path) if path.suffix == ".safetensors" else read_pickled(path)
