"""How DPCLIP judges by photos of what the target should look like: the hooks that fetch, remember and keep them."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image
from torch import Tensor

from anomalib_dpclip.adapter_files.read_and_write import MEMORY_PREFIX
from anomalib_dpclip.method.corrections import Corrections
from anomalib_dpclip.method.memory import TokenMemory
from anomalib_dpclip.model.ignore import IgnoresRegion
from anomalib_dpclip.post_processing.calibration import Calibration
from anomalib_dpclip.post_processing.calibration_statistics import CalibrationStatistics
from anomalib_dpclip.post_processing.post_processor import DPCLIPPostProcessor
from anomalib_dpclip.pre_processing.pre_processor import CLIPPreProcessor
from anomalib_dpclip.references.correcting import Corrector
from anomalib_dpclip.references.reference_calibration import calibrate_on_references
from anomalib_dpclip.references.reference_images import (
    as_tensor,
    folder_references,
    read_references,
    require_untested,
    resized,
    training_references,
)
from anomalib_dpclip.references.reference_memory import build_memory

logger = logging.getLogger(__name__)

CORRECTIONS_PREFIX = "model.corrections."


class Knowledge(NamedTuple):
    """What a model knows of its target beside the name.

    Attributes:
        memory: Of good photos, if there are any.
        corrections: What it is not to call anomalous again.
        calibration: Thresholds in force; ``None`` with another post-processor than DP-CLIP's.
        is_stored: Whether a checkpoint brought the memory: it and the calibration made with it stay.
    """

    memory: TokenMemory | None
    corrections: Corrections | None
    calibration: Calibration | None
    is_stored: bool


class KnowsReferences(IgnoresRegion):
    """The part of `DPCLIP` that has photos of the target.

    Attributes:
        k_shot: Photos to take of the training split, or of the folder.
        few_shot_source: Folder of photos.
        memory_tokens: Tokens that the memory keeps of each tap at most.
        seed: Of the choice.
    """

    k_shot: int
    few_shot_source: str | Path | None
    memory_tokens: int
    seed: int
    pre_processor: Any

    _photos: Tensor | None = None
    """Those of `set_references`, ready for the model but for the normalisation."""
    _memory_is_stored = False
    _known_without_photos: Knowledge | None = None
    """What was known before `set_references`."""
    _validated = False
    """Whether validation images have set the thresholds."""

    @property
    def has_references(self) -> bool:
        """Whether photos of the target are in use, or will be when a run starts."""
        return bool(self.k_shot or self.few_shot_source is not None or self.model.memory is not None)

    @property
    def knowledge(self) -> Knowledge:
        """What is known now: to be put back later."""
        processor = self.post_processor
        calibration = deepcopy(processor.calibration) if isinstance(processor, DPCLIPPostProcessor) else None
        # Memories and corrections are replaced by others, never changed.
        return Knowledge(self.model.memory, self.model.corrections, calibration, self._memory_is_stored)

    @knowledge.setter
    def knowledge(self, known: Knowledge) -> None:
        device = self.model.anchors.device
        self.model.memory = None if known.memory is None else known.memory.to(device)
        self.model.corrections = None if known.corrections is None else known.corrections.to(device)
        self._memory_is_stored = known.is_stored
        if known.calibration is not None:
            self.post_processor.calibration.copy_from(known.calibration)

    @property
    def _preparation(self) -> CLIPPreProcessor:
        """How photos are prepared: as images that are judged are, or as they would be without a pre-processor switched off."""
        own = self.pre_processor
        return own if isinstance(own, CLIPPreProcessor) else CLIPPreProcessor(self.model.input_size)

    def set_references(self, images: Sequence[str | Path | Image.Image | Tensor] | Tensor) -> None:
        """Judge by these photos of what the target should look like, until others are set.

        Args:
            images: Files, PIL images, or tensors ``(3, H, W)`` in [0, 1]; none at all forgets those set before, with their
                thresholds, and what was known without them is in force again.

        Raises:
            ImageReadError: If a file cannot be read; names it.
            ValueError: If an image has another shape.
        """
        if not len(images):
            if self._known_without_photos is not None:
                self.knowledge = self._known_without_photos
            self._photos = self._known_without_photos = None
            return
        photos = self._resized([_tensor(image) for image in images])
        if self._known_without_photos is None:
            self._known_without_photos = self.knowledge
        self._photos, self._memory_is_stored = photos, False
        if self.model.anchors.any():
            self._remember(self._photos, calibrate=True)

    def follow_references(self) -> None:
        """Fetch the photos that the arguments name and remember them, seen with the adapters as they are now."""
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        if self._memory_is_stored and not fitting:
            if self.few_shot_source is not None:
                logger.warning(
                    "judging by the photos that the checkpoint keeps, not by those of --model.few_shot_source %s: to judge by "
                    "others, name the checkpoint with --model.weights in the place of --ckpt_path",
                    self.few_shot_source,
                )
            return
        if fitting and self._known_without_photos is not None:  # of other adapters than there will be
            self._known_without_photos = Knowledge(None, None, None, is_stored=False)
        photos = self._photos
        if photos is None:
            paths = self._reference_paths()
            if paths is None:
                return
            require_untested(paths, self.target)
            photos = self._resized(read_references(paths, self.target))
        validates = self._validated or self.trainer.state.fn in {TrainerFn.FITTING, TrainerFn.VALIDATING}
        self._remember(photos, calibrate=not validates)

    def reference_digest(self) -> str | None:
        """Identifies the photos that a run will judge by, before it starts; ``None`` without any, or with stored ones."""
        if self._memory_is_stored:
            return None
        if self._photos is not None:
            return hashlib.sha256(self._photos.numpy().tobytes()).hexdigest()
        paths = self._reference_paths()
        return None if paths is None else hashlib.sha256(b"".join(Path(path).read_bytes() for path in paths)).hexdigest()

    def _reference_paths(self) -> list[str] | None:
        if self.few_shot_source is not None:
            return folder_references(self.few_shot_source, self.k_shot, self.seed)
        return training_references(self.target, self.k_shot, self.seed) if self.k_shot else None

    def _resized(self, images: Sequence[Tensor]) -> Tensor:
        """Photos ``(3, H, W)`` of their own size ready for the model, ``(K, 3, H, W)``."""
        if self.model.ignored is not None:
            for number, image in enumerate(images):
                self.model.ignored.require_size(image.shape[2], image.shape[1], f"photo {number} of the target")
        return resized(images, self._preparation.resize_only)

    def _remember(self, photos: Tensor, *, calibrate: bool) -> None:
        model = self.model
        device = model.anchors.device
        memory, statistics = build_memory(
            model, photos.to(device), self._preparation.normalize, model.anchors, self.memory_tokens, self.seed
        )
        model.memory, model.corrections = memory.to(device), None  # of another memory
        logger.info(
            "judging by %d photos of the target: %d tokens a tap, of which the memory counts %.2f beside the text",
            len(photos),
            memory.tokens.shape[1],
            memory.share.item(),
        )
        if calibrate:
            self._calibrate(statistics)

    def _calibrate(self, statistics: CalibrationStatistics) -> None:
        """Thresholds from the photos themselves, each judged by the others, as it is and with synthetic defects."""
        processor = self.post_processor
        if isinstance(processor, DPCLIPPostProcessor):
            calibrate_on_references(processor.calibration, statistics, self.model.domain, processor.false_alarm_rate)

    def fit_memory_to(self, state: Mapping[str, Any]) -> None:
        """Make room for the memory that a state dict holds, of whatever size; without one there is none."""
        self._known_without_photos = None
        tokens = state.get(MEMORY_PREFIX + "tokens")
        self._memory_is_stored = tokens is not None
        self.model.memory = None if tokens is None else TokenMemory(torch.zeros_like(tokens)).to(self.model.anchors.device)

    def add_corrections(self, images: Sequence[str | Path | Image.Image | Tensor]) -> None:
        """Judge from now on also by photos that were called anomalous and are not.

        Thresholds rise a little where something else in such photos would still be called anomalous.

        Args:
            images: As in `set_references`.

        Raises:
            ImageReadError: If a file cannot be read; names it.
            ValueError: If there is no memory that they could be added to.
        """
        memory = self.model.memory
        if memory is None:
            raise ValueError(
                "there is no memory of photos of the target that corrections could be added to: give good photos with "
                "--model.few_shot_source FOLDER, or --model.k_shot, when you calibrate"
            )
        device = self.model.anchors.device
        photos = self._resized([_tensor(image) for image in images]).to(device)
        processor = self.post_processor
        calibration = processor.calibration if isinstance(processor, DPCLIPPostProcessor) else Calibration().to(device)
        Corrector(self.model, memory, calibration, self._preparation.normalize).correct(photos, self.memory_tokens, self.seed)

    def fit_corrections_to(self, state: Mapping[str, Any]) -> None:
        """Make room for the corrections that a state dict holds; without any there are none."""
        self.model.corrections = None
        if any(name.startswith(CORRECTIONS_PREFIX) for name in state):
            names = ("blame", "distance", "looks", "standing", "thresholds")
            blame, distance, looks, standing, thresholds = (state[CORRECTIONS_PREFIX + name] for name in names)
            known = Corrections(blame, distance, looks, standing, thresholds, self.model.backbone.grid)
            self.model.corrections = known.to(self.model.anchors.device)

    def require_references(self) -> None:
        """Before an export: have the photos that the arguments ask for.

        Raises:
            ValueError: If only a data module could bring them.
        """
        if self.model.memory is not None or not self.has_references:
            return
        if self.few_shot_source is None:
            raise ValueError(
                f"--model.k_shot {self.k_shot} takes photos of a training split, which an export does not have: give a folder "
                f"with --model.few_shot_source, or a checkpoint of a run with --ckpt_path"
            )
        paths = folder_references(self.few_shot_source, self.k_shot, self.seed)
        self._remember(self._resized(read_references(paths)), calibrate=True)


def _tensor(image: str | Path | Image.Image | Tensor) -> Tensor:
    if isinstance(image, str | Path):
        return read_references([image])[0]
    if isinstance(image, Image.Image):
        return as_tensor(image.convert("RGB"))
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"a reference must be an image (3, H, W) in [0, 1], not a tensor of shape {tuple(image.shape)}")
    return image.float()
