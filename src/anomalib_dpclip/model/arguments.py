"""Arguments of DPCLIP by subject: those that few users set. `None` stands for what a file says, else for what was published."""

import math
import os
from dataclasses import dataclass, fields
from typing import Any, Literal

from anomalib_dpclip.data_sets.class_names import readable_name
from anomalib_dpclip.files.plain_data import is_list
from anomalib_dpclip.method.adapters import Pooling
from anomalib_dpclip.method.anomaly_map import TEMPERATURE, Detection
from anomalib_dpclip.scorers.memory_fit import MEMORY_TOKENS

DEFAULT_SEED = 111
"""Of the published training."""

LIGHTNING_DEFAULT_SEED = 0
"""What anomalib's command line sets where nobody asks for a seed; it cannot be told apart from asking for 0."""


@dataclass(frozen=True)
class ClipOptions:
    """How CLIP's weights are read.

    Attributes:
        quick_gelu: Whether the towers use QuickGELU instead of GELU. Default: as the CLIP weights were trained; ``openai``
            weights run with GELU, as in the published results, though they were trained with QuickGELU.
        pretrained_tag: Open_clip tag that says how the weights of a local file were trained.
        image_mean: Mean of the three image channels, instead of that of the weights.
        image_std: Standard deviation of the three image channels, instead of that of the weights.
        tokenizer: Folder of the text tower's tokenizer, for backbones whose tokenizer is not part of open_clip (SigLIP, CLIPA).
    """

    quick_gelu: bool | None = None
    pretrained_tag: str | None = None
    image_mean: list[float] | None = None
    image_std: list[float] | None = None
    tokenizer: str | None = None


@dataclass(frozen=True)
class Architecture:
    """What adapters only make sense with.

    Attributes:
        adapter_layers: Layers (0-based) followed by an adapter. Default: the first quarter.
        tap_layers: Layers (1-based) after which patch tokens are tapped. Default: the quarter points of the depth.
        adapter_weight: Share of the adapted tokens after an adapted layer, in [0, 1]. Default: 0.1.
        projector_activation: Whether the projectors end with a LeakyReLU too. Default: false.
        grn_pooling: Axis that the layer adapters' GRN pools over: ``tokens`` of the image (default), ``batch`` (as published:
            predictions then depend on the batch), or ``none`` for no GRN at all.
        detection: What the image score takes beside the map's peak: ``projector``, the detection projector as published
            (default), or ``class_token``, CLIP's own zero-shot score of the whole image.
    """

    adapter_layers: list[int] | None = None
    tap_layers: list[int] | None = None
    adapter_weight: float | None = None
    projector_activation: bool | None = None
    grn_pooling: Pooling | None = None
    detection: Detection | None = None


@dataclass(frozen=True)
class Prompts:
    """Sentences that stand for a class. Default of each: the published ones.

    Attributes:
        normal_states: Phrases for a normal object, each with one ``{}`` for the class name.
        abnormal_states: Phrases for an anomalous object.
        templates: Sentences around the phrases.
    """

    normal_states: list[str] | None = None
    abnormal_states: list[str] | None = None
    templates: list[str] | None = None


@dataclass(frozen=True)
class Training:
    """How adapters learn.

    Attributes:
        auxiliary_root: Folder of the auxiliary set, or a list of one folder a set. Default: the data module's own.
        auxiliary_unmasked: Whether anomalous auxiliary images without masks are allowed; they train the classification loss
            only.
        num_workers: Number of processes that read auxiliary images. Default: by the machine.
        decoupling_weight: Weight of the decoupling loss; 0 leaves it out.
        prototype_momentum: Momentum of the global prototypes, in [0, 1].
        checkpointing: Whether layers are computed again in the backward pass instead of remembered: less memory, more time.
        epochs: Number of epochs. Default: ``--trainer.max_epochs``, else the published 20.
        learning_rate: Learning rate of Adam.
        milestones: Optimiser steps at which the learning rate is halved.
        temperature: Factor on the similarities in the segmentation loss; ``backbone`` for the one that the backbone learned.
    """

    auxiliary_root: str | list[str] | None = None
    auxiliary_unmasked: bool = False
    num_workers: int | None = None
    decoupling_weight: float = 0.1
    prototype_momentum: float = 0.999
    checkpointing: bool = False
    epochs: int | None = None
    learning_rate: float = 5e-4
    milestones: list[int] | tuple[int, ...] = (16000, 32000)
    temperature: float | Literal["backbone"] = TEMPERATURE

    def __post_init__(self) -> None:
        """Check ranges."""
        for name, value in (("learning_rate", self.learning_rate), ("temperature", self.temperature)):
            if not isinstance(value, str) and value <= 0:
                raise ValueError(f"{name} must be positive, not {value}")
        if self.epochs is not None and self.epochs < 1:
            raise ValueError(f"training.epochs must be at least 1, not {self.epochs}")
        if not 0 <= self.decoupling_weight < math.inf:
            raise ValueError(f"decoupling_weight must be at least 0 and finite, not {self.decoupling_weight}")


@dataclass(frozen=True)
class MemoryOptions:
    """How good images and an unlabelled batch are compared.

    Attributes:
        text_weight: Weight of the text beside the distances, both standardised. Default: as learned with the adapters, else 1.
        tokens: Most tokens of a layer that the memory keeps; of more, so many are chosen.
        weights: Local file of `memory_backbone`'s weights.
        image_size: Side of `memory_backbone`'s images in pixels. Default: 512 where maps shrink with depth, else as trained.
        layers: Depths of the feature maps of `memory_backbone`, as shares of its stages or blocks in (0, 1].
    """

    text_weight: float | None = None
    tokens: int = MEMORY_TOKENS
    weights: str | None = None
    image_size: int | None = None
    layers: list[float] | None = None

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.tokens <= 0:
            raise ValueError(f"memory.tokens must be positive, not {self.tokens}")
        if self.text_weight is not None and not 0 <= self.text_weight < math.inf:
            raise ValueError(f"memory.text_weight must be at least 0 and finite, not {self.text_weight}")


@dataclass(frozen=True)
class RegionOptions:
    """What is scored and shown of an image.

    Attributes:
        ignore: Picture of the photos' size, white where nothing is scored (a fixture, a timestamp): what lies there counts
            neither for maps, scores and thresholds nor for metrics, in exported files as well.
        min_area: Pixels of the photo that an anomalous region has at least to be listed and shown; smaller ones are specks.
            Default: as a file says, else 0.
    """

    ignore: str | None = None
    min_area: int | None = None

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.min_area is not None and self.min_area < 0:
            raise ValueError(f"min_area must be at least 0, not {self.min_area}: it is a number of pixels")


@dataclass(frozen=True)
class ExportOptions:
    """What goes into an exported file.

    Attributes:
        classes: Classes of one file, ``"metal nut,bolt,screw"`` or a list, of which it takes the number as a second, optional
            input. Default: the one class.
    """

    classes: str | list[str] | None = None

    def names(self) -> list[str]:
        """The classes; none at all for the one class of the model. A name that is empty or there twice is a `ValueError`.

        Example:
            >>> ExportOptions("metal_nut, bolt").names()
            ['metal nut', 'bolt']
        """
        given = self.classes.split(",") if isinstance(self.classes, str) else self.classes or []
        if not all(name.strip() for name in given):
            raise ValueError(f"export.classes has a class without a name: {self.classes!r}. Put a comma between two names")
        found = [readable_name(name) for name in given]
        folded = [name.casefold() for name in found]
        twice = [name for index, name in enumerate(found) if name.casefold() in folded[:index]]
        if twice:
            raise ValueError(f"export.classes names {twice[0]!r} twice: a file tells its classes apart by their names")
        return found


GROUPS: dict[str, Any] = {
    "training": Training,
    "memory": MemoryOptions,
    "region": RegionOptions,
    "prompts": Prompts,
    "architecture": Architecture,
    "clip": ClipOptions,
    "export": ExportOptions,
}
"""Groups of arguments by the names that they have as arguments of `DPCLIP`."""


def groups_of(**given: Any) -> dict[str, Any]:
    """All groups by name, each from an object, from a mapping as YAML files and checkpoints have it, or the default one.

    A mapping with a name that its group does not have is a ValueError.
    """
    groups = {}
    for group, kind in GROUPS.items():
        value = given.get(group) or {}
        if isinstance(value, kind):
            groups[group] = value
            continue
        names = {item.name for item in fields(kind)}
        if unknown := sorted(value.keys() - names):
            raise ValueError(f"{kind.__name__} has no argument {unknown[0]!r}: it has {', '.join(sorted(names))}")
        groups[group] = kind(**{name: list(each) if is_list(each) else each for name, each in value.items()})
    return groups


def check_flat(batch_size: int, seed: int, k_shot: int, tiles: int | None, reads_target: bool) -> None:
    """A ValueError for numbers out of range, or that do not go together (`reads_target`: good or other images count too)."""
    if batch_size <= 0:
        raise ValueError(f"batch_size must be positive, not {batch_size}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must lie in 0..{2**32 - 1}, not {seed}")
    if k_shot < 0:
        raise ValueError(f"k_shot must be at least 0, not {k_shot}: it is the number of good images of the target")
    if tiles is not None and tiles < 1:
        raise ValueError(f"tiles must be at least 1, not {tiles}")
    if (tiles or 1) > 1 and reads_target:
        raise ValueError("k_shot, few_shot_source and lot score whole images: set --model.tiles 1")


def seed_or_global(seed: int | None) -> int:
    """The seed given, else the global one that `lightning.seed_everything` has set, else `DEFAULT_SEED`."""
    if seed is not None:
        return seed
    global_seed = int(os.environ.get("PL_GLOBAL_SEED", LIGHTNING_DEFAULT_SEED))
    return DEFAULT_SEED if global_seed == LIGHTNING_DEFAULT_SEED else global_seed
