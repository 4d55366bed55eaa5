"""What the target is: the data module that is validated, tested or predicted on, its class's text anchors, and its domain."""

import logging
from pathlib import Path
from typing import Any

import torch
from anomalib.data import AnomalibDataModule, ImageBatch
from lightning.pytorch import LightningModule
from torch import Tensor

from anomalib_dpclip.adapter_files.adapter_file import Provenance
from anomalib_dpclip.data.photos import Photos
from anomalib_dpclip.method.anchor_cache import AnchorCache
from anomalib_dpclip.method.class_names import UNKNOWN_CLASS, classes_of
from anomalib_dpclip.method.domain import DEFAULT_DOMAIN, Domain, domain_of
from anomalib_dpclip.method.torch_model import DPCLIPModel
from anomalib_dpclip.post_processing.post_processor import DPCLIPPostProcessor

logger = logging.getLogger(__name__)


class KnowsTarget(LightningModule):
    """The part of `DPCLIP` that follows the target.

    Attributes:
        anchors_for: Text anchors ``(E, 2)`` by class name.
        class_name: What the images show, if the user said so.
        chosen_domain: Domain that the user chose, if any.
        provenance: Where the adapters come from.
        weights: What they were loaded from; ``None`` while there is something to learn.
    """

    model: DPCLIPModel
    post_processor: Any
    anchors_for: AnchorCache
    class_name: str | None
    chosen_domain: Domain | None
    provenance: Provenance
    weights: str | Path | None
    anchor_class = ""
    """Class of the current anchors; empty where an earlier version has written the checkpoint that brought them."""

    @property
    def target(self) -> AnomalibDataModule | None:
        """The user's data module, if there is one."""
        datamodule = getattr(self.trainer, "datamodule", None)
        return datamodule if isinstance(datamodule, AnomalibDataModule) else None

    @property
    def target_name(self) -> str:
        """What the images are of, such as ``Surfaces/weave``; the class, if no data module says more."""
        if self.target is None:
            return self.class_name or ""
        category = getattr(self.target, "category", None)
        return f"{self.target.name}/{category}" if category else str(self.target.name)

    @property
    def is_calibrated(self) -> bool:
        """Whether thresholds are in force that somebody set."""
        return isinstance(self.post_processor, DPCLIPPostProcessor) and bool(self.post_processor.calibration.is_set)

    # Class

    def set_class(self, class_name: str) -> None:
        """Make a class's text anchors the current ones."""
        self.model.anchors.copy_(self.anchors_for(class_name))
        self.anchor_class = class_name

    def anchors_of(self, batch: ImageBatch) -> Tensor:
        """Anchors of each image's class ``(B, E, 2)``, or the current class's ``(E, 2)`` where images carry none."""
        names = getattr(batch, "class_name", None)
        if names is None or (self.class_name is not None and not self.training):
            return self.model.anchors
        return torch.stack([self.anchors_for(name) for name in names]).to(self.device, non_blocking=True)

    def resolve_class(self) -> None:
        """Take the class name from the arguments, else from the data module; without either keep what is there."""
        if self.class_name is not None:
            self.set_class(self.class_name)
            return
        names = set() if self.target is None else classes_of(self.target)
        if len(names) == 1:
            self.set_class(*names)
        elif not self.model.anchors.any():
            if not names:  # of several, each image names its own
                logger.warning("no class name is known: prompts say 'object'. Name it with --model.class_name")
            self.set_class(UNKNOWN_CLASS)

    # Domain

    def set_domain(self, domain: Domain) -> None:
        """Make a domain's blur and score fusion the current ones."""
        self.model.domain = domain
        if isinstance(self.post_processor, DPCLIPPostProcessor):
            self.post_processor.domain = domain

    def resolve_domain(self, calibrating: bool) -> None:
        """The one place that decides the domain of a run.

        The user's choice comes first. Thresholds in force hold in the domain that they were set in, and no other; where new
        ones are to be set, or none are, the data set decides if it is one of the method's, else what is there stays.

        Args:
            calibrating: Whether thresholds are about to be set.
        """
        known = None if self.target is None or isinstance(self.target, Photos) else domain_of(self.target.name)
        if self.chosen_domain is not None:
            self.set_domain(self.chosen_domain)
        elif calibrating or not self.is_calibrated:
            self.set_domain(known or self.model.domain)
        elif known not in {None, self.model.domain}:
            logger.warning(
                "the thresholds in force were set on %s images, and %s is %s: calibrate with `anomalib validate` on it",
                self.model.domain,
                self.target.name,
                known,
            )

    def adopt_adapters(self, source: str) -> None:
        """Take adapters, which somebody has put into the model, for trained: nothing is learned any more.

        Their calibration is put in force, unless it was made in another domain than the user's choice.

        Args:
            source: Where they come from.
        """
        self.weights = source
        made_in: Any = self.provenance.calibration_domain
        self.set_domain(self.chosen_domain or made_in or DEFAULT_DOMAIN)
        if not isinstance(self.post_processor, DPCLIPPostProcessor):
            return
        if made_in in {"", self.model.domain}:
            self.post_processor.use_auxiliary_calibration()
        else:
            logger.warning(
                "%s has thresholds of %s images, which do not hold with domain=%s: calibrate with `anomalib validate` on "
                "images of the target",
                source,
                made_in,
                self.chosen_domain,
            )
