"""The labelled images that adapters learn from: which set, by the arguments or the target's name, and whether it will do."""

from pathlib import Path
from typing import Any

import pandas as pd
from anomalib.data import AnomalibDataModule, AnomalibDataset

from anomalib_dpclip.auxiliary.dataset import AuxiliaryDataset
from anomalib_dpclip.auxiliary.leakage import require_disjoint
from anomalib_dpclip.auxiliary.synthetic import SYNTHETIC, SyntheticAuxiliaryDataset, synthetic_samples
from anomalib_dpclip.clip.pretraining import Preprocessing
from anomalib_dpclip.data.image_checks import require_readable
from anomalib_dpclip.data.labelled_sets import is_path, prepare_labelled_set, read_labelled_set
from anomalib_dpclip.data.listing.metadata import few_shot
from anomalib_dpclip.data_sets.class_names import describe
from anomalib_dpclip.data_sets.names import data_set_key
from anomalib_dpclip.files.plain_data import is_list


class AuxiliarySet:
    """The set or sets to learn from.

    Args:
        sources: A set or a list of sets: names, JSON-lines files, data sets or data modules. Default: see `default_auxiliary`.
        roots: Folder of each set that is a name or file, or one for all. Default: the data modules' own.
        shots: Number of images of each category, half of them anomalous where there are enough. Default: all.
        unmasked: Whether anomalous images may lack a mask; they then train the classification loss only.
        seed: Seed of the choice of shots, and of augmentation.
    """

    def __init__(self, sources: Any, roots: Any, shots: int | None, unmasked: bool, seed: int) -> None:
        self._sources, self._roots = sources, roots
        self.shots, self.unmasked, self.seed = shots, unmasked, seed

    def _sources_and_roots(self, target: AnomalibDataModule | None) -> list[tuple[Any, str | Path | None]]:
        """The sets and the folder of each, ``None`` for its data module's own."""
        sources = list(self._sources) if is_list(self._sources) else [self._sources]
        if self._sources is None:
            sources = [default_auxiliary(target.name if target else None)]
            if self._roots is None and type(target).__name__ == sources[0]:  # Surfaces: both parts lie in one folder
                return [(sources[0], str(target.root))]  # type: ignore[union-attr, attr-defined]
        if not sources:
            raise ValueError("auxiliary names no set to learn from")
        if SYNTHETIC in sources and len(sources) > 1:
            raise ValueError(f"--model.auxiliary {SYNTHETIC} stands alone: it cannot be mixed with labelled sets")
        roots = list(self._roots) if is_list(self._roots) else [self._roots] * len(sources)
        if len(roots) != len(sources):
            raise ValueError(f"auxiliary_root names {len(roots)} folders for {len(sources)} auxiliary sets: name one each")
        return list(zip(sources, roots, strict=True))

    def prepare(self, target: AnomalibDataModule | None) -> None:
        """Download what is not there yet; raises as `prepare_labelled_set`."""
        for source, root in self._sources_and_roots(target):
            if isinstance(source, str) and source != SYNTHETIC:
                prepare_labelled_set(source, root)

    def samples(self, target: AnomalibDataModule | None, class_name: str | None = None) -> pd.DataFrame:
        """All images to learn from, one row each.

        Args:
            target: Data module that has been set up, if there is one.
            class_name: What it shows; only for `synthetic`.

        Returns:
            Columns ``image_path``, ``mask_path`` (``None`` where there is none), ``label_index``, ``class_name`` (readable) and
            ``data_set``. If anomalous images lack masks, or there is none, a ValueError.
        """
        sets = self._sources_and_roots(target)
        if sets[0][0] == SYNTHETIC:
            return synthetic_samples(target, class_name, self.shots, self.seed)
        frames = []
        for source, root in sets:
            frame = _samples_of(source, root)
            frames.append(frame if self.shots is None else few_shot(frame, self.shots, self.seed))
        samples = pd.concat(frames, ignore_index=True)[["image_path", "mask_path", "label_index", "class_name", "data_set"]]
        samples["class_name"] = list(map(describe, samples.data_set, samples.class_name))
        masks = [str(path) if is_path(path) else None for path in samples.mask_path]
        samples["mask_path"] = pd.Series(masks, dtype=object)
        anomalous = samples[samples.label_index == 1]
        names = ", ".join(samples.data_set.unique())
        if anomalous.empty:
            raise ValueError(f"the auxiliary set {names} has no anomalous image: DP-CLIP learns what damage looks like")
        unmasked = anomalous[anomalous.mask_path.isna()]
        if len(unmasked) == len(anomalous) or (len(unmasked) and not self.unmasked):
            raise ValueError(
                f"{len(unmasked)} of {len(anomalous)} anomalous images of the auxiliary set {names} have no mask, the first is "
                f"{unmasked.image_path.iloc[0]}: DP-CLIP learns from masks. Add them, name another set with "
                f"--model.auxiliary, or let such images train the classification alone (where some have masks) with "
                f"--model.training.auxiliary_unmasked true"
            )
        return samples

    def dataset(
        self, target: AnomalibDataModule | None, class_name: str | None, size: tuple[int, int], preprocessing: Preprocessing
    ) -> AuxiliaryDataset:
        """Images to learn from; raises as `samples`, `require_disjoint` and `require_readable`, all before the first step."""
        samples = self.samples(target, class_name)
        require_disjoint(samples, target)
        masked = samples[samples.mask_path.notna()]
        require_readable(samples.image_path, zip(masked.image_path, masked.mask_path, strict=True))
        is_synthetic = self._sources_and_roots(target)[0][0] == SYNTHETIC
        kind = SyntheticAuxiliaryDataset if is_synthetic else AuxiliaryDataset
        return kind(samples, size, preprocessing, self.seed)


def default_auxiliary(target: str | None) -> str:
    """Set to learn from when none is named: VisA, or MVTec AD when VisA is the target; the procedural surfaces' own six."""
    return {"visa": "MVTecAD", "surfaces": "Surfaces"}.get(data_set_key(target), "VisA")


def learned_from(samples: pd.DataFrame) -> list[str]:
    """Data sets and classes of samples, as ``"VisA/candle"``."""
    return sorted({f"{row.data_set}/{row.class_name}" for row in samples.itertuples()})


def _samples_of(source: Any, root: str | Path | None) -> pd.DataFrame:
    if not isinstance(source, AnomalibDataModule | AnomalibDataset):
        return read_labelled_set(str(source), root)
    dataset: Any = source
    if isinstance(source, AnomalibDataModule):
        source.prepare_data()
        source.setup()
        dataset = source.test_data
    samples = dataset.samples.assign(data_set=source.name)
    return samples if "class_name" in samples else samples.assign(class_name=source.category or "")
