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
    file = Path(path)
    writers = {".safetensors": write_safetensors, ".pth": write_published}
    if file.suffix not in writers:
        raise ValueError(f"{file}: adapters are written as .safetensors, or .pth for the published format")
    writers[file.suffix](content, file)
    return file


def read_adapters(path: str | Path) -> AdapterFile:
    """Read an adapter file of any of the three kinds without a model.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none of them, or damaged.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no adapter file {file}")
    return read_safetensors(file) if file.suffix == ".safetensors" else read_pickled(file)
