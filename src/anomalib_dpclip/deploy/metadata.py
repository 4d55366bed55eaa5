"""What an exported file says of itself: class, backbone, adapters, thresholds and what these rest on."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from anomalib_dpclip.files.plain_data import plain_data

METADATA_KEY = "dpclip"
"""Under which ONNX's metadata and OpenVINO's runtime information hold it."""

FORMAT_VERSION = 1
"""Of the metadata; a file with a higher one is refused."""

SCALES = "scales"
"""Name of a file's table of packed scales: an input while it is exported, so that nothing is computed from it beforehand."""

PIXEL_THRESHOLD, IMAGE_THRESHOLD = 6, 11
"""Places of the thresholds in a packed `post_processing.scale.Scale`, which showing a file need not import."""

CLASS = "class"
"""Name of the input that chooses one of several classes, by its number from 0."""

RAW_SCORE = "raw_score"
"""Name of the image score before its normalisation."""


@dataclass
class DeployedClass:
    """One class of a file.

    Attributes:
        name: What the images show; empty if nobody knows.
        scale: Packed `Scale` that the file was exported with, from which thresholds are moved.
        threshold_basis: What the thresholds in force hold to, in words.
    """

    name: str
    scale: list[float]
    threshold_basis: str = ""


@dataclass
class Metadata:
    """What a file says.

    Attributes:
        pretrained: Weights of the CLIP backbone, in words.
        adapters: Digest of the adapters, as ``dpclip adapters`` shows it.
        learned_from: Data sets and classes that the adapters learned from.
        is_normalised: Whether maps are normalised; else they are raw.
        classes: Its classes, the first being the default.
        version: Of this package.
    """

    backbone: str
    pretrained: str
    adapters: str
    learned_from: list[str]
    domain: str
    is_normalised: bool
    classes: list[DeployedClass]
    version: str = ""
    format_version: int = FORMAT_VERSION

    def as_text(self) -> str:
        """As it is written."""
        return json.dumps(asdict(self), sort_keys=True)


def metadata_from(text: str | None, path: Path) -> Metadata:
    """What a file's text says; a ValueError if there is none, it is of a newer version, or damaged."""
    if text is None:
        raise ValueError(f"{path} has no thresholds that could be moved: it was exported by another package or post-processor")
    try:
        values: Any = plain_data(json.loads(text))
        newer = values["format_version"] > FORMAT_VERSION
        classes = [DeployedClass(**each) for each in values.pop("classes")]
        known = None if newer else Metadata(classes=classes, **values)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: what it says of itself cannot be read; the file is damaged: {error}") from error
    if known is None:
        raise ValueError(f"{path} was exported by a newer version of this package: upgrade anomalib-dpclip")
    return known


def table_of_scales(found: list[Any], path: Path) -> Any:
    """The one table of scales of a file, of what it has by that name; a ValueError if there is none."""
    if not found:
        raise ValueError(f"{path}: its thresholds are gone, another tool has rewritten the file; export it anew")
    return found[0]
