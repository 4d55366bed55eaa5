"""What a file of adapters holds, whatever its format: tensors, and where they come from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_dpclip.clip.pretraining import MINI
from anomalib_dpclip.files.plain_data import plain_data

if TYPE_CHECKING:  # commands say what is wrong with their arguments before they import torch
    from torch import Tensor

FORMAT_VERSION = 1
"""Of adapter files; a file with a higher one is refused."""

PROVENANCE_KEY = "dpclip"
"""Under which adapter files and checkpoints hold the provenance."""

ADAPTER_PREFIXES = ("layer_adapters.", "seg_proj.", "det_proj.")
"""Beginnings of the names that adapters and projectors have in every format, and in `DPCLIPModel`."""

UNADAPTED = "clip"
"""Value of the model's ``weights`` for the backbone without adapters, of which there is no file."""

# Arguments that `Provenance` has in other words, or that are a path of one machine.
_SAID_ELSEWHERE = frozenset({"backbone", "pretrained", "tokenizer"})


@dataclass(frozen=True)
class Provenance:
    """Where adapters come from; what is unknown is empty.

    Attributes:
        backbone: Name of the CLIP backbone.
        pretrained: Its weights: an open_clip tag, or the name of a file.
        fingerprint: Of the backbone's weights and activation.
        preprocessing: Statistics and interpolation of the images, see `Preprocessing`; empty in files from before it was kept,
            when it was OpenAI's.
        architecture: Arguments that a model must share for the adapters to mean the same.
        arguments: The model's other arguments that predictions depend on, by name.
        learned_from: Data sets and classes, as ``"VisA/candle"``.
        hyper_parameters: Of the training.
        epochs: Epochs trained.
        max_epochs: Epochs that the training was asked for; 0 if unknown.
        calibration_domain: Domain whose maps and scores the adapters' calibration is of.
        calibration_basis: What the thresholds of the adapters' calibration hold to, in words.
        text_weights: Learned weights of the text beside distances to good images: by the network whose features are compared,
            then by the number of good images.
        versions: Of this package, anomalib, torch and open_clip.
        format_version: Of the file.
    """

    backbone: str = ""
    pretrained: str = ""
    fingerprint: str = ""
    preprocessing: dict[str, Any] = field(default_factory=dict)
    architecture: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    learned_from: list[str] = field(default_factory=list)
    hyper_parameters: dict[str, Any] = field(default_factory=dict)
    epochs: int = 0
    max_epochs: int = 0
    calibration_domain: str = ""
    calibration_basis: str = ""
    text_weights: dict[str, dict[str, float]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @property
    def clip_weights(self) -> str:
        """The backbone's weights, in words."""
        if (self.backbone, self.pretrained) == (MINI, "openai"):  # the other backbones' default, which the mini has nothing of
            return "come with the package"
        return self.pretrained or "unknown"

    @property
    def data_sets(self) -> dict[str, list[str]]:
        """Classes that were learned from, by data set.

        Example:
            >>> Provenance(learned_from=["VisA/candle", "MVTecAD/cable", "MVTecAD/bottle"]).data_sets
            {'MVTecAD': ['bottle', 'cable'], 'VisA': ['candle']}
        """
        pairs = sorted(each.partition("/")[::2] for each in self.learned_from)
        return {name: [each for _, each in classes] for name, classes in groupby(pairs, key=lambda pair: pair[0])}

    @classmethod
    def from_dict(cls, values: Any, path: Path) -> "Provenance":
        """Build from plain data, a ValueError for newer formats; unknown keys are left out, and text is made printable."""
        if not isinstance(values, dict):
            raise ValueError(f"{path}: its provenance is not what this package writes; is it an adapter file?")
        version = values.get("format_version", 1)
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise ValueError(
                f"{path} has format version {version}, this package knows up to {FORMAT_VERSION}: upgrade anomalib-dpclip"
            )
        nothing, known = cls(), {}
        for name in (item.name for item in fields(cls) if item.name in values):
            try:
                known[name] = plain_data(values[name])
                is_right = isinstance(known[name], type(getattr(nothing, name)))
            except ValueError:
                is_right = False
            if not is_right or (name == "learned_from" and not all(isinstance(source, str) for source in known[name])):
                raise ValueError(f"{path}: its provenance has a wrong {name!r}; is the file damaged?")
        return cls(**known)

    def with_arguments(self, arguments: Mapping[str, Any]) -> "Provenance":
        """With arguments of the model that predictions depend on; those that are ``None`` follow the file or the data."""
        left_out = _SAID_ELSEWHERE | self.architecture.keys()
        kept = {name: value for name, value in arguments.items() if value is not None and name not in left_out}
        return replace(self, arguments=plain_data(kept))

    @property
    def model_arguments(self) -> dict[str, Any]:
        """Arguments of `DPCLIP` that give the model that these adapters are of, as far as they are known; of any type."""
        # Files from before arguments were kept have them among those of the training.
        named = {"backbone": self.backbone or None, "pretrained": self.pretrained or None}
        found = (self.arguments or self.hyper_parameters) | named | self.architecture
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class AdapterFile:
    """Contents of an adapter file.

    Attributes:
        tensors: Adapters and projectors by their published names.
        calibration: State of the auxiliary calibration, empty if the file has none.
        provenance: Where they come from.
        memory: State of the memory of good images of a target; like the next, only in a checkpoint.
        threshold_basis: What the thresholds of a target hold to, in words.
    """

    tensors: "dict[str, Tensor]"
    calibration: "dict[str, Tensor]"
    provenance: Provenance
    memory: "dict[str, Tensor]" = field(default_factory=dict)
    threshold_basis: str = ""
