"""OpenVINO files: finished after anomalib's conversion, read, and written with other thresholds."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from anomalib_dpclip.deploy.metadata import CLASS, METADATA_KEY, RAW_SCORE, SCALES, Metadata, metadata_from, table_of_scales

Array = npt.NDArray[np.float32]


class OpenVINOFile:
    """An OpenVINO file of this package, its ``.bin`` beside the ``.xml``; as `OnnxFile`."""

    def __init__(self, path: Path) -> None:
        import openvino

        self.path = path
        try:
            self._model = openvino.Core().read_model(path)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ValueError(f"{path} is no OpenVINO file that can be read, or its .bin is not beside it: {reason}") from error
        text = self._model.get_rt_info([METADATA_KEY]).astype(str) if self._model.has_rt_info([METADATA_KEY]) else None
        self.metadata = metadata_from(text, path)
        tables = [each for each in self._model.get_ops() if each.get_friendly_name() == SCALES]
        self._table = table_of_scales(tables, path)
        self.scales: Array = np.array(self._table.data)

    def write(self, raw_score: bool | None = None) -> None:
        """Write both files with scales and metadata as they are now, the raw score in or out, by default as before."""
        constant = _constant(self.scales)
        self._table.output(0).replace(constant.output(0))
        self._table = constant
        if raw_score is not None:
            _give_raw_score(self._model, raw_score)
        save(self._model, self.path, self.metadata)

    def runner(self) -> Callable[[Array, int], dict[str, Array]]:
        """From an image ``(1, 3, H, W)`` in [0, 1] and the number of its class to the outputs by their names."""
        import openvino

        compiled = openvino.Core().compile_model(self._model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

        def run(image: Array, number: int) -> dict[str, Array]:
            chosen: dict[Any, Any] = {CLASS: np.array([number])} if len(self.metadata.classes) > 1 else {}
            results = compiled({0: image} | chosen)
            return {output.get_any_name(): results[output] for output in results}

        return run

    @property
    def input_size(self) -> tuple[int, int] | None:
        """Height and width of the images that it takes; ``None`` for any."""
        height, width = list(self._model.input(0).partial_shape)[2:]
        return None if height.is_dynamic or width.is_dynamic else (height.get_length(), width.get_length())


def finish_converted(model: Any, path: Path, scales: Array, metadata: Metadata, raw_score: bool) -> None:
    """Write a converted model as a file of this package, an ``.xml`` and its ``.bin``.

    The table of scales ``(C, 15)``, one of its inputs, becomes a constant, which no compression rounds.
    """
    from openvino import Dimension, PartialShape, opset13

    for parameter in model.get_parameters():
        if SCALES in parameter.output(0).get_names():
            parameter.output(0).replace(_constant(scales).output(0))
            model.remove_parameter(parameter)
        elif CLASS in parameter.output(0).get_names():
            # It may be left out: an input of no or one number, without which it is the first class.
            optional = opset13.parameter(PartialShape([Dimension(0, 1)]), np.int64, name=CLASS)
            first = opset13.constant(np.zeros(1, np.int64))
            chosen = opset13.gather(opset13.concat([optional, first], 0), first, opset13.constant(np.int64(0)))
            parameter.output(0).set_names(set())
            parameter.output(0).replace(chosen.output(0))
            model.remove_parameter(parameter)
            optional.output(0).set_names({CLASS})
            model.add_parameters([optional])
    _give_raw_score(model, raw_score)
    save(model, path, metadata)


def _give_raw_score(model: Any, wanted: bool) -> None:
    """Take the raw image score in or out of a model's outputs; inside it keeps its name."""
    given = [each for each in model.get_results() if RAW_SCORE in each.input_value(0).get_names()]
    if wanted and not given:
        model.add_outputs(RAW_SCORE)
    elif not wanted:
        for each in given:
            model.remove_result(each)


def save(model: Any, path: Path, metadata: Metadata | None = None) -> None:
    """Write ``.xml`` and ``.bin``, each whole or not at all; the weights first, so that what the text says is true of them."""
    import openvino

    model.validate_nodes_and_infer_types()
    if metadata is not None:
        model.set_rt_info(metadata.as_text(), [METADATA_KEY])
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as folder:
        unfinished = Path(folder) / path.name
        openvino.save_model(model, unfinished, compress_to_fp16=False)  # what is compressed already stays so
        for suffix in (".bin", ".xml"):
            unfinished.with_suffix(suffix).replace(path.with_suffix(suffix))


def _constant(scales: Array) -> Any:
    from openvino import opset13

    constant = opset13.constant(scales.astype(np.float32), dtype=np.float32)
    constant.set_friendly_name(SCALES)
    return constant
