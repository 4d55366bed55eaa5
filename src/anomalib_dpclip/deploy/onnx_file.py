"""ONNX files: made of what torch exports, read, and written with other thresholds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anomalib_dpclip.deploy.metadata import CLASS, METADATA_KEY, RAW_SCORE, SCALES, Metadata, metadata_from, table_of_scales
from anomalib_dpclip.files.atomic_write import atomic_write

Array = npt.NDArray[np.float32]


class OnnxFile:
    """An ONNX file: what it says of itself, and its packed scales ``(C, 15)``; a ValueError if it is none of this package."""

    def __init__(self, path: Path) -> None:
        from google.protobuf.message import DecodeError
        from onnx import numpy_helper

        self.path = path
        try:
            self._proto = _load(path)
        except (DecodeError, ValueError) as error:
            raise ValueError(f"{path} is no ONNX file that can be read, it may be truncated: {error}") from error
        said = {each.key: each.value for each in self._proto.metadata_props}
        self.metadata = metadata_from(said.get(METADATA_KEY), path)
        tables = [each for each in self._proto.graph.initializer if each.name == SCALES]
        self.scales: Array = np.array(numpy_helper.to_array(table_of_scales(tables, path)))

    def write(self, raw_score: bool | None = None) -> None:
        """Write the whole file or none, with its scales and metadata as they are now; `raw_score` as in `_finish`."""
        _finish(self._proto, self.path, self.scales, self.metadata, raw_score)

    def runner(self) -> Callable[[Array, int], dict[str, Array]]:
        """From an image ``(1, 3, H, W)`` in [0, 1] and the number of its class to the outputs by their names."""
        import onnxruntime

        session = onnxruntime.InferenceSession(self.path, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        image_name = session.get_inputs()[0].name

        def run(image: Array, number: int) -> dict[str, Array]:
            chosen = {CLASS: np.array([number])} if len(self.metadata.classes) > 1 else {}
            return dict(zip(names, session.run(names, {image_name: image, **chosen}), strict=True))

        return run

    @property
    def input_size(self) -> tuple[int, int] | None:
        """Height and width of the images that it takes; ``None`` for any."""
        height, width = (each.dim_value for each in self._proto.graph.input[0].type.tensor_type.shape.dim[2:])
        return (height, width) if height and width else None


def finish_exported(path: Path, scales: Array, metadata: Metadata, raw_score: bool) -> None:
    """Turn what torch has exported into a file of this package, in its place.

    The second input is the table of scales ``(C, 15)``, which becomes a constant; the third, if any, is the class.
    """
    from onnx import numpy_helper

    proto = _load(path)
    if len(metadata.classes) > 1:  # an input with a value of its own may be left out
        proto.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.int64), CLASS))
    _remove(proto.graph.input, SCALES)
    _finish(proto, path, scales, metadata, raw_score)


def _finish(proto: Any, path: Path, scales: Array, metadata: Metadata, raw_score: bool | None) -> None:
    """Write a model with these scales and metadata, its raw score in or out of its outputs, by default as before."""
    import onnx

    graph = proto.graph
    _remove(graph.initializer, SCALES)
    graph.initializer.append(onnx.numpy_helper.from_array(scales.astype(np.float32), SCALES))
    others = {each.key: each.value for each in proto.metadata_props}
    onnx.helper.set_model_props(proto, others | {METADATA_KEY: metadata.as_text()})
    if raw_score is not None:
        known = [*_remove(graph.output, RAW_SCORE), *_remove(graph.value_info, RAW_SCORE)][:1]
        (graph.output if raw_score else graph.value_info).extend(known)
    with atomic_write(path) as unfinished:
        onnx.save(proto, unfinished)


def _remove(items: Any, name: str) -> list[Any]:
    """Take what has a name out of a list of a model; what was taken."""
    found = [each for each in items if each.name == name]
    for each in found:
        items.remove(each)
    return found


def _load(path: Path) -> Any:
    import onnx

    return onnx.load(path, load_external_data=False)  # weights beside a large file stay where they are
