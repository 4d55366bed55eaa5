"""The command `dpclip threshold`: shows an exported file, and moves its thresholds without a new export."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from anomalib_dpclip.deploy.metadata import IMAGE_THRESHOLD, PIXEL_THRESHOLD, Metadata
from anomalib_dpclip.files.plain_data import printable

if TYPE_CHECKING:  # imported by what needs it: a file is shown without torch, and all but pictures are without anomalib
    from torch import Tensor

    from anomalib_dpclip.deploy.onnx_file import OnnxFile
    from anomalib_dpclip.deploy.openvino_file import OpenVINOFile
    from anomalib_dpclip.post_processing.scale import Scale

    ExportedFile: TypeAlias = OnnxFile | OpenVINOFile

ROUNDING = 2e-6
"""Share of their range that raw values may be off by, worked out of outputs in single precision of which the outer twentieth
stands for most of the range: the image at the threshold must not exceed it."""


def threshold(
    file: Path,
    image: float | None = None,
    pixel: float | None = None,
    from_: Path | None = None,
    rate: float | None = None,
    class_name: str | None = None,
    raw_score: bool | None = None,
) -> None:
    """Show what an exported file is of and what its thresholds rest on, and move them.

    Args:
        file: ``.onnx`` or ``.xml`` file that this package has exported.
        image: Threshold on the raw image score.
        pixel: Threshold on the raw map.
        from_: Folder of normal images to set both thresholds from, by the file's own answers.
        rate: Probability in [0, 1) with which a new normal image may exceed each of these thresholds.
        class_name: Class whose thresholds are moved, in a file of several.
        raw_score: Whether the file gives ``raw_score``, the image score before its normalisation, beside the others.
            anomalib's ``OpenVINOInferencer`` refuses files that do.
    """
    if (from_ is None) != (rate is None):
        raise ValueError("--from FOLDER and --rate RATE go together: normal images, and how many may exceed the thresholds")
    if from_ is not None and (image is not None or pixel is not None):
        raise ValueError("--from sets both thresholds: leave --image and --pixel out")
    if rate is not None and not 0 <= rate < 1:
        raise ValueError(f"--rate must lie in [0, 1), not {rate}")
    exported = read_exported(file)
    is_moved = any(value is not None for value in (image, pixel, from_))
    if is_moved:
        import torch

        from anomalib_dpclip.post_processing.scale import unpacked

        number = _number_of(exported.metadata, class_name, file)
        current, known = unpacked(torch.from_numpy(exported.scales[number])), exported.metadata.classes[number]
        if from_ is not None and rate is not None:
            *chosen, known.threshold_basis = _from_images(exported, number, current, from_, rate)
        else:
            *chosen, known.threshold_basis = _by_hand(current, image, pixel)
        exported.scales[number] = unpacked(torch.tensor(known.scale)).with_thresholds(*chosen).packed()
    if is_moved or raw_score is not None:
        exported.write(raw_score)
    for key, value in _description(file, exported).items():
        print(f"{key:<16} {printable(value)}")  # noqa: T201  (the command's answer)


def read_exported(file: Path) -> "ExportedFile":
    """An exported file of either kind; raises as `threshold`."""
    if not file.is_file():
        raise FileNotFoundError(f"there is no exported file {file}")
    if file.suffix not in {".onnx", ".xml"}:
        raise ValueError(f"{file}: thresholds are moved in .onnx and .xml files; of other kinds export anew")

    from anomalib_dpclip.deploy.onnx_file import OnnxFile
    from anomalib_dpclip.deploy.openvino_file import OpenVINOFile

    try:
        return OnnxFile(file) if file.suffix == ".onnx" else OpenVINOFile(file)
    except ModuleNotFoundError as error:
        extra = {".onnx": "onnx", ".xml": "openvino"}[file.suffix]
        raise ModuleNotFoundError(f"{file} needs the package {error.name}: pip install 'anomalib-dpclip[{extra}]'") from error


def _number_of(metadata: Metadata, class_name: str | None, path: Path) -> int:
    names = [each.name for each in metadata.classes]
    if class_name is None and len(names) == 1:
        return 0
    if class_name not in names:
        what = "several classes" if class_name is None else f"no class {class_name!r}"
        raise ValueError(f"{path} has {what}: choose one with --class_name: {', '.join(map(repr, names))}")
    return names.index(class_name)


def _by_hand(current: "Scale", image: float | None, pixel: float | None) -> tuple[float, float, str]:
    """Image and pixel threshold, given or as they are, and what they rest on; refused if no image could reach one."""
    from anomalib_dpclip.post_processing.conformal import NO_GUARANTEE

    given, values = [], []
    for name, value, points in (("image", image, current.score_knots), ("pixel", pixel, current.map_knots)):
        lowest, _, known, _, highest = points.tolist()
        if value is not None and not lowest < value < highest:
            raise ValueError(
                f"--{name} must lie between {lowest:.4g} and {highest:.4g}, the lowest and highest raw "
                f"{'score' if name == 'image' else 'value of a map'} there is, not {value}"
            )
        given += [] if value is None else [name]
        values.append(known if value is None else value)
    return values[0], values[1], f"the {' and '.join(given)} threshold was set by hand; {NO_GUARANTEE}"


def _from_images(
    exported: "ExportedFile", number: int, current: "Scale", folder: Path, rate: float
) -> tuple[float, float, str]:
    """Thresholds that new normal images like these exceed at a rate, by the file's own scores and maps of them."""
    import torch

    from anomalib_dpclip.post_processing.conformal import false_alarm_threshold, guarantee_of, too_few

    scores, peaks = (torch.tensor(values) for values in zip(*_raw_values(exported, number, current, folder), strict=True))
    if rate and (missing := too_few(len(scores), Fraction(str(rate)))):
        print(f"{missing}: the strictest threshold is set")  # noqa: T201
    image, pixel = (
        false_alarm_threshold(values, rate) + ROUNDING * float(points[-1] - points[0])
        for values, points in ((scores, current.score_knots), (peaks, current.map_knots))
    )
    return image, pixel, guarantee_of(len(scores), rate, f" of {folder.resolve().name}")


def _raw_values(exported: "ExportedFile", number: int, current: "Scale", folder: Path) -> Iterator[tuple[float, float]]:
    """Raw score, and peak of the raw map, of each image of a folder."""
    import torch
    from torchvision.transforms.v2.functional import to_dtype, to_image

    from anomalib_dpclip.data.images import read_image
    from anomalib_dpclip.data.photo_files import photo_files
    from anomalib_dpclip.pre_processing.resize import EightBitResize

    paths = sorted(photo_files(folder))
    if not paths:
        raise FileNotFoundError(f"no photos in {folder}: --from must be the folder of the normal photos")
    run, size = exported.runner(), exported.input_size
    for path in paths:
        image = to_dtype(to_image(read_image(path)), torch.float32, scale=True)
        outputs = run((image if size is None else EightBitResize(size)(image))[None].numpy(), number)
        peak = float(outputs["anomaly_map"].max())
        raw_peak = raw_value(peak, current.map_knots) if exported.metadata.is_normalised else peak
        yield raw_value(float(outputs["pred_score"].item()), current.score_knots), raw_peak


def raw_value(normalised: float, points: "Tensor") -> float:
    """What a value in [0, 1] was before `piecewise_linear` through control points ``(5,)``."""
    import numpy as np

    from anomalib_dpclip.post_processing.scale import NORMALISED_CONTROL_POINTS

    return float(np.interp(normalised, NORMALISED_CONTROL_POINTS, points.double().numpy()))


def _description(file: Path, exported: "ExportedFile") -> dict[str, str]:
    known = exported.metadata
    lines = {
        "file": str(file),
        "backbone": f"{known.backbone}, CLIP weights: {known.pretrained}",
        "adapters": f"digest {known.adapters}, learned from {', '.join(known.learned_from) or 'unknown'}",
        "domain": known.domain,
    }
    for index, (each, scale) in enumerate(zip(known.classes, exported.scales, strict=True)):
        number = f" {index}" if len(known.classes) > 1 else ""
        lines |= {
            f"class{number}": each.name or "unknown",
            f"thresholds{number}": f"image {scale[IMAGE_THRESHOLD]:.4f}, pixel {scale[PIXEL_THRESHOLD]:.4f} (raw)",
            f"basis{number}": each.threshold_basis or "unknown",
        }
    return lines
