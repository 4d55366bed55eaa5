"""Which set a target is learned with: from the arguments, or by default from the target's name."""

from pathlib import Path
from typing import Any

import pandas as pd
from anomalib.data import AnomalibDataModule

from anomalib_dpclip.auxiliary.dataset import AuxiliaryDataset
from anomalib_dpclip.auxiliary.leakage import require_disjoint
from anomalib_dpclip.auxiliary.samples import auxiliary_samples, default_auxiliary, is_path
from anomalib_dpclip.auxiliary.synthetic import SYNTHETIC, SyntheticAuxiliaryDataset, synthetic_samples
from anomalib_dpclip.clip.preprocessing import Preprocessing
from anomalib_dpclip.data.image_checks import require_readable
from anomalib_dpclip.data.labelled_sets import prepare_labelled_set
from anomalib_dpclip.files.plain_data import is_list


class AuxiliarySet:
    """The set or sets to learn from.

    Args:
        sources: A set or a list of sets, see `AuxiliarySource`. Default: by the target, see `default_auxiliary`.
        roots: Folder of each set, or one for all. Default: the data modules' own.
        shots: Number of images of each category, half of them anomalous where there are enough. Default: all.
        unmasked: Whether anomalous images may lack a mask; they then train the classification loss only.
        seed: Seed of the choice of shots, and of augmentation.
    """

    def __init__(self, sources: Any, roots: Any, shots: int | None, unmasked: bool, seed: int) -> None:
        self._sources, self._roots = sources, roots
        self.shots, self.unmasked, self.seed = shots, unmasked, seed

    def _sources_and_roots(self, target: AnomalibDataModule | None) -> tuple[list[Any], list[str | Path | None]]:
        """The sets and the folder of each, ``None`` for its data module's own.

        Raises:
            ValueError: If `synthetic` does not stand alone, or the numbers of sets and folders differ.
        """
        sources = list(self._sources) if is_list(self._sources) else [self._sources]
        if self._sources is None:
            sources = [default_auxiliary(target.name if target else None)]
            if self._roots is None and type(target).__name__ == sources[0]:  # Surfaces: both parts lie in one folder
                return sources, [str(target.root)]  # type: ignore[union-attr, attr-defined]
        if SYNTHETIC in sources and len(sources) > 1:
            raise ValueError(f"--model.auxiliary {SYNTHETIC} stands alone: it cannot be mixed with labelled sets")
        roots = list(self._roots) if is_list(self._roots) else [self._roots] * len(sources)
        if len(roots) != len(sources):
            raise ValueError(f"auxiliary_root names {len(roots)} folders for {len(sources)} auxiliary sets: name one each")
        return sources, roots

    def prepare(self, target: AnomalibDataModule | None) -> None:
        """Download what is not there yet.

        Raises:
            FileNotFoundError: If a set cannot be had.
        """
        for source, root in zip(*self._sources_and_roots(target), strict=True):
            if isinstance(source, str) and source != SYNTHETIC:
                prepare_labelled_set(source, root)

    def samples(self, target: AnomalibDataModule | None, class_name: str | None = None) -> pd.DataFrame:
        """Images to learn from, as `auxiliary_samples` and `synthetic_samples` list them."""
        sources, roots = self._sources_and_roots(target)
        if sources == [SYNTHETIC]:
            return synthetic_samples(target, class_name, self.shots, self.seed)
        return auxiliary_samples(sources, roots, self.shots, self.seed, self.unmasked)

    def dataset(
        self,
        target: AnomalibDataModule | None,
        class_name: str | None,
        image_size: tuple[int, int],
        preprocessing: Preprocessing,
    ) -> AuxiliaryDataset:
        """Images to learn from, none of which the target tests on.

        Args:
            target: What is validated and tested on, if anything is.
            class_name: What the target shows; only for `synthetic`.
            image_size: Height and width of the model's input.
            preprocessing: Preprocessing of the backbone.

        Raises:
            ImageReadError: If images or masks cannot be read; names all of them, before the first step.
            ValueError: If the set cannot be learned from, or shares an image with the target.
        """
        samples = self.samples(target, class_name)
        require_disjoint(samples, target)
        masked = samples[samples.mask_path.map(is_path)]
        require_readable(samples.image_path, zip(masked.image_path, masked.mask_path, strict=True))
        kind = SyntheticAuxiliaryDataset if self._sources_and_roots(target)[0] == [SYNTHETIC] else AuxiliaryDataset
        return kind(samples, image_size, preprocessing, self.seed)


def learned_from(samples: pd.DataFrame) -> list[str]:
    """Data sets and classes of samples, as ``"VisA/candle"``."""
    return sorted({f"{row.data_set}/{row.class_name}" for row in samples.itertuples()})
