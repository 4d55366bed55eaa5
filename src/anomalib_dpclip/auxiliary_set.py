"""Which set a target is learned with: from the arguments, or by default from the target's name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from anomalib.data import AnomalibDataModule

from anomalib_dpclip.auxiliary import AuxiliaryDataset, auxiliary_samples, default_auxiliary
from anomalib_dpclip.data.labelled_sets import prepare_labelled_set
from anomalib_dpclip.leakage import require_disjoint
from anomalib_dpclip.synthetic_auxiliary import SYNTHETIC, SyntheticAuxiliaryDataset, synthetic_samples


class AuxiliarySet:
    """The set or sets to learn from.

    Args:
        sources: A set or a list of sets; see `DPCLIP`. Default: by the target.
        roots: Folder of each set, or one for all. Default: the data modules' own.
        shots: As in `DPCLIP`.
        unmasked: As in `DPCLIP`.
        seed: Of the choice of shots, and of augmentation.
    """

    def __init__(self, sources: Any, roots: Any, shots: int | None, unmasked: bool, seed: int) -> None:
        self._sources, self._roots = sources, roots
        self.shots, self.unmasked, self.seed = shots, unmasked, seed

    def sources_for(self, target: AnomalibDataModule | None) -> tuple[list[Any], list[str | Path | None]]:
        """Sets and their folders.

        Raises:
            ValueError: If the numbers of sets and folders differ, or `synthetic` does not stand alone.
        """
        sources = self._sources
        if sources is None:
            sources = default_auxiliary(target.name if target else None)
        sources = list(sources) if is_list(sources) else [sources]
        if SYNTHETIC in sources and len(sources) > 1:
            raise ValueError(f"--model.auxiliary {SYNTHETIC} stands alone: it cannot be mixed with labelled sets")
        roots = self._roots
        if roots is None and self._sources is None and type(target).__name__ == sources[0]:
            roots = str(target.root)  # type: ignore[union-attr, attr-defined]  # Surfaces: both parts lie in one folder
        roots = list(roots) if is_list(roots) else [roots] * len(sources)
        if len(roots) != len(sources):
            raise ValueError(f"auxiliary_root names {len(roots)} folders for {len(sources)} auxiliary sets: name one each")
        return sources, roots

    def prepare(self, target: AnomalibDataModule | None) -> None:
        """Download what is not there yet.

        Raises:
            FileNotFoundError: If a set cannot be had.
        """
        for source, root in zip(*self.sources_for(target), strict=True):
            if isinstance(source, str) and source != SYNTHETIC:
                prepare_labelled_set(source, root)

    def dataset(
        self, target: AnomalibDataModule, class_name: str | None, image_size: tuple[int, int], fill: Sequence[float]
    ) -> AuxiliaryDataset:
        """Images to learn from, none of which the target tests on.

        Args:
            target: What is validated and tested on.
            class_name: What the target shows; only for `synthetic`.
            image_size: Of the model.
            fill: Colour of uncovered pixels.

        Raises:
            ValueError: If the set cannot be learned from, or shares an image with the target.
        """
        sources, roots = self.sources_for(target)
        dataset_class: type[AuxiliaryDataset] = AuxiliaryDataset
        if sources == [SYNTHETIC]:
            dataset_class, samples = SyntheticAuxiliaryDataset, synthetic_samples(target, class_name, self.shots, self.seed)
        else:
            samples = auxiliary_samples(sources, roots, self.shots, self.seed, self.unmasked)
        require_disjoint(samples, target)
        return dataset_class(samples, image_size, fill, self.seed)


def learned_from(samples: pd.DataFrame) -> list[str]:
    """Data sets and classes of samples, as ``"VisA/candle"``."""
    return sorted({f"{row.data_set}/{row.class_name}" for row in samples.itertuples()})


def is_list(value: Any) -> bool:
    """Whether a value is a list of any kind; benchmark configs bring OmegaConf's."""
    return isinstance(value, Sequence) and not isinstance(value, str)
