"""Files of adapters in any format, read and written without a model.

They come from anywhere: nothing in them is executed, and whatever cannot be read is one error that names the file.
"""

from pathlib import Path

from anomalib_dpclip.adapter_files.contents import AdapterFile, is_plain_tensor
from anomalib_dpclip.adapter_files.foreign_formats import read_pickled, write_published
from anomalib_dpclip.adapter_files.hub import local_file
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

    Args:
        path: The file, or one on the Hugging Face hub, see `hub_file`.

    Raises:
        FileNotFoundError: If there is no such file, or it cannot be fetched.
        ValueError: If it is none of them, or damaged.
    """
    file = local_file(path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no adapter file {file}")
    content = read_safetensors(file) if file.suffix == ".safetensors" else read_pickled(file)
    _require_no_more_than_is_stored(content, file)
    return content


def _require_no_more_than_is_stored(content: AdapterFile, file: Path) -> None:
    """Refuse tensors that are larger than what is stored of them, as pickled ones may be: writing them would fill a disk."""
    tensors = [*content.tensors.values(), *content.calibration.values()]
    claimed = sum(value.numel() * value.element_size() for value in tensors if is_plain_tensor(value))
    if claimed > file.stat().st_size:
        raise ValueError(f"{file} claims {claimed:,} bytes of adapters, more than it is long: it is damaged, or made to harm")
