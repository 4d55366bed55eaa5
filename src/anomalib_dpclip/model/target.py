"""What the target is: the data module that is validated, tested or predicted on, its class's text anchors, and its domain."""

import logging
from typing import Any

import torch
from anomalib.data import AnomalibDataModule, ImageBatch
from lightning.pytorch import LightningModule
from torch import Tensor

from anomalib_dpclip.method.anchor_cache import AnchorCache
from anomalib_dpclip.method.class_names import UNKNOWN_CLASS, classes_of
from anomalib_dpclip.method.domain import Domain, domain_of
from anomalib_dpclip.method.torch_model import DPCLIPModel
from anomalib_dpclip.model.post_processor import DPCLIPPostProcessor

logger = logging.getLogger(__name__)


class KnowsTarget(LightningModule):
    """The part of `DPCLIP` that follows the target.

    Attributes:
        anchors_for: Text anchors ``(E, 2)`` by class name.
        class_name: What the images show, if the user said so.
        chosen_domain: Domain that the user chose, if any.
    """

    model: DPCLIPModel
    post_processor: Any
    anchors_for: AnchorCache
    class_name: str | None
    chosen_domain: Domain | None

    @property
    def target(self) -> AnomalibDataModule | None:
        """The user's data module, if there is one."""
        datamodule = getattr(self.trainer, "datamodule", None)
        return datamodule if isinstance(datamodule, AnomalibDataModule) else None

    def set_class(self, class_name: str) -> None:
        """Make a class's text anchors the current ones."""
        self.model.anchors.copy_(self.anchors_for(class_name))

    def set_domain(self, domain: Domain) -> None:
        """Make a domain's blur and score fusion the current ones."""
        self.model.domain = domain
        if isinstance(self.post_processor, DPCLIPPostProcessor):
            self.post_processor.domain = domain

    def anchors_of(self, batch: ImageBatch) -> Tensor:
        """Anchors of each image's class ``(B, E, 2)``, or the current class's ``(E, 2)`` where images carry none."""
        names = getattr(batch, "class_name", None)
        if names is None or (self.class_name is not None and not self.training):
            return self.model.anchors
        return torch.stack([self.anchors_for(name) for name in names]).to(self.device, non_blocking=True)

    def follow_target(self) -> None:
        """Take class name and domain from the arguments, else from the data module; without either keep what is there."""
        target = self.target
        if self.chosen_domain is None and target is not None:
            self.set_domain(domain_of(target.name))
        if self.class_name is not None:
            self.set_class(self.class_name)
            return
        names = set() if target is None else classes_of(target)
        if len(names) == 1:
            self.set_class(*names)
        elif not self.model.anchors.any():
            if not names:  # of several, each image names its own
                logger.warning("no class name is known: prompts say 'object'. Name it with --model.class_name")
            self.set_class(UNKNOWN_CLASS)
