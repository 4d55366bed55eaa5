"""Learning without any labelled set: the target's own normal training images, with synthetic defects put into them."""

import pandas as pd
from anomalib.data import AnomalibDataModule
from anomalib.data.utils.generators import PerlinAnomalyGenerator
from torchvision.tv_tensors import Image as ImageTensor
from torchvision.tv_tensors import Mask

from anomalib_dpclip.auxiliary.dataset import AuxiliaryDataset
from anomalib_dpclip.clip.pretraining import Preprocessing
from anomalib_dpclip.data.listing.metadata import few_shot
from anomalib_dpclip.data_sets.class_names import describe
from anomalib_dpclip.files.seeded import seeded

SYNTHETIC = "synthetic"
"""Value of ``auxiliary`` that asks for this."""

DEFECT_SHARE = 0.5
"""Share of the images that get a defect: as many as stay normal, so that the classification loss leans to neither side."""


def synthetic_samples(
    target: AnomalibDataModule | None, class_name: str | None = None, shots: int | None = None, seed: int = 111
) -> pd.DataFrame:
    """The normal training images of a one-class data module that has been set up, as `AuxiliarySet.samples` has them.

    They are none of its test images: what is learned is one-class, not zero-shot. What they show is by default said by the
    data set and its categories. Without a data module, or a normal training image in it, a ValueError.
    """
    if target is None:
        raise ValueError(f"--model.auxiliary {SYNTHETIC} learns from the target's normal training images: name it with --data")
    dataset = getattr(target, "train_data", None)
    samples = pd.DataFrame() if dataset is None else dataset.samples[dataset.samples.label_index == 0]
    if samples.empty:
        raise ValueError(
            f"--model.auxiliary {SYNTHETIC} learns from the target's normal training images, and {target.name} has none: add "
            f'some (in a metadata file: lines with "split": "train"), or name a labelled set with --model.auxiliary'
        )
    categories = samples.class_name if "class_name" in samples else [target.category] * len(samples)
    samples = pd.DataFrame(
        {
            "image_path": samples.image_path.to_list(),
            "mask_path": None,
            "label_index": 0,
            "class_name": [class_name or describe(target.name, category) for category in categories],
            "data_set": f"{SYNTHETIC}/{target.name}",
        }
    )
    return samples if shots is None else few_shot(samples, shots, seed)


class SyntheticAuxiliaryDataset(AuxiliaryDataset):
    """Normal images, half of which get a synthetic defect: anomalib's Perlin generator, blended in after the resize.

    Whether and which follows, like all augmentation, from the seed, the epoch and the image alone.
    """

    def __init__(self, samples: pd.DataFrame, image_size: tuple[int, int], preprocessing: Preprocessing, seed: int) -> None:
        super().__init__(samples, image_size, preprocessing, seed)
        with seeded(seed):  # the generator draws one of its constants when it is made
            self.generator = PerlinAnomalyGenerator(probability=DEFECT_SHARE)

    def _labelled(self, image: ImageTensor, mask: Mask, _: int) -> tuple[ImageTensor, Mask, int]:
        damaged, defect = self.generator(image)
        # What is blended in may leave the range of images.
        return ImageTensor(damaged.clamp(0, 1)), Mask(defect[0].to(mask.dtype)), int(defect.any())
