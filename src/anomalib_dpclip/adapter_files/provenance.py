"""Where adapters come from: what their file, and a checkpoint, says of their making."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from anomalib_dpclip.files.plain_data import plain_data

FORMAT_VERSION = 1
"""Of adapter files; a file with a higher one is refused."""

PROVENANCE_KEY = "dpclip"
"""Under which adapter files and checkpoints hold it."""

THRESHOLD_BASIS_KEY = "threshold_basis"
"""Beside the provenance in a checkpoint: what its thresholds in force hold to, in words."""


@dataclass(frozen=True)
class Provenance:
    """Where adapters come from.

    Attributes:
        backbone: Name of the CLIP backbone.
        pretrained: Its weights: an open_clip tag, or the name of a file.
        fingerprint: Of the backbone's weights and activation; empty if unknown.
        preprocessing: Statistics and interpolation of the images, see `Preprocessing`; empty in files from before it was kept,
            when it was OpenAI's.
        architecture: Arguments that a model must share for the adapters to mean the same.
        learned_from: Data sets and classes, as ``"VisA/candle"``.
        hyper_parameters: Of the training.
        epochs: Epochs trained.
        max_epochs: Epochs that the training was asked for; 0 if unknown.
        calibration_domain: Domain whose maps and scores the adapters' calibration is of; empty if unknown.
        calibration_basis: What the thresholds of the adapters' calibration hold to, in words; empty if unknown.
        versions: Of this package, anomalib, torch and open_clip.
        format_version: Of the file.
    """

    backbone: str = ""
    pretrained: str = ""
    fingerprint: str = ""
    preprocessing: dict[str, Any] = field(default_factory=dict)
    architecture: dict[str, Any] = field(default_factory=dict)
    learned_from: list[str] = field(default_factory=list)
    hyper_parameters: dict[str, Any] = field(default_factory=dict)
    epochs: int = 0
    max_epochs: int = 0
    calibration_domain: str = ""
    calibration_basis: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @classmethod
    def from_dict(cls, values: Any, path: Path) -> "Provenance":
        """Build from plain data, refusing newer formats; unknown keys are left out, and text is made printable.

        Raises:
            ValueError: If the data is of another kind or from a newer version of this package.
        """
        if not isinstance(values, dict):
            raise ValueError(f"{path}: its provenance is not what this package writes; is it an adapter file?")
        if not isinstance(values.get("format_version", 1), int) or values.get("format_version", 1) > FORMAT_VERSION:
            raise ValueError(
                f"{path} has format version {values.get('format_version')}, this package knows up to {FORMAT_VERSION}: "
                f"upgrade anomalib-dpclip"
            )
        defaults = {item.name: getattr(cls(), item.name) for item in fields(cls)}
        known = {name: values[name] for name in defaults if name in values}
        wrong = [name for name, value in known.items() if not isinstance(value, type(defaults[name]))]
        wrong += [] if all(isinstance(source, str) for source in known.get("learned_from", ())) else ["learned_from"]
        for name, value in known.items():
            try:
                known[name] = plain_data(value)
            except ValueError:
                wrong.append(name)
        if wrong:
            raise ValueError(f"{path}: its provenance has a wrong {wrong[0]!r}; is the file damaged?")
        return cls(**known)
