"""What the images show: their class and its text anchors, and their domain; who decides them, and when."""

import logging

import torch
from anomalib.data import AnomalibDataModule, ImageBatch
from torch import Tensor

from anomalib_dpclip.data.photos import Photos
from anomalib_dpclip.data_sets.class_names import UNKNOWN_CLASS, classes_of, readable_name
from anomalib_dpclip.data_sets.domain import Domain, domain_of
from anomalib_dpclip.method.prompting import AnchorCache
from anomalib_dpclip.method.torch_model import DPCLIPModel

logger = logging.getLogger(__name__)


class Target:
    """Class and domain of what is validated, tested or predicted.

    Args:
        model: Model that holds the current anchors and domain.
        anchors_for: Text anchors ``(E, 2)`` by class name.
        class_name: Class that the user named, if any: it holds whatever the data say.
        default_class: Class that a file names: it holds where neither the user nor the data name one.
        domain: Domain that the user chose, if any.

    Attributes:
        anchor_class: Class of the current anchors; empty where nobody has named one yet.
    """

    def __init__(
        self,
        model: DPCLIPModel,
        anchors_for: AnchorCache,
        class_name: str | None = None,
        default_class: str | None = None,
        domain: Domain | None = None,
    ) -> None:
        self.model, self.anchors_for = model, anchors_for
        self.class_name = None if class_name is None else readable_name(class_name)
        self.default_class = None if default_class is None else readable_name(default_class)
        self.chosen_domain, self.anchor_class = domain, ""

    def set_class(self, class_name: str) -> None:
        """Make a class's text anchors the current ones."""
        self.model.anchors.copy_(self.anchors_for(class_name))
        self.anchor_class = class_name

    def resolve_class(self, datamodule: AnomalibDataModule | None, *, is_run: bool = True) -> None:
        """Take the class from the user, else from the data, else from the file; without any keep what is there.

        That it is unknown is worth a warning only as a run begins: before, its data may yet name it.
        """
        names = set() if datamodule is None else classes_of(datamodule)
        if self.class_name is not None:
            self.set_class(self.class_name)
        elif len(names) == 1:
            self.set_class(*names)
        elif not self.model.anchors.any():
            self.set_class(self.default_class or UNKNOWN_CLASS)
        is_named = self.class_name or self.default_class or names  # of several, each image names its own
        if is_run and not is_named and self.anchor_class == UNKNOWN_CLASS:
            logger.warning("no class name is known: prompts say 'object'. Name it with --model.class_name")

    def anchors_of(self, batch: ImageBatch, device: torch.device, *, follow_images: bool) -> Tensor:
        """Anchors of each image's class ``(B, E, 2)``, or the current class's ``(E, 2)`` where images carry none.

        In training the images' classes come before the user's (`follow_images`).
        """
        names = getattr(batch, "class_name", None)
        if names is None or (self.class_name is not None and not follow_images):
            return self.model.anchors
        return torch.stack([self.anchors_for(name) for name in names]).to(device, non_blocking=True)

    def resolve_domain(self, datamodule: AnomalibDataModule | None, *, is_calibrated: bool) -> Domain:
        """Domain of a run: the user's, else that of thresholds that are in force and stay, else the data set's, else as it is.

        Thresholds hold in the domain that they were set in, and no other.
        """
        if self.chosen_domain is not None:
            return self.chosen_domain
        known = None if datamodule is None or isinstance(datamodule, Photos) else domain_of(datamodule.name)
        if not is_calibrated:
            return known or self.model.domain
        if known not in {None, self.model.domain}:
            logger.warning(
                "the thresholds in force were set on %s images, and %s is %s: calibrate with `anomalib validate` on it",
                *(self.model.domain, getattr(datamodule, "name", ""), known),
            )
        return self.model.domain
