"""MVTec AD under the name that its paper uses."""

from anomalib.data.datamodules.image.mvtecad import MVTecAD


class MVTec(MVTecAD):
    """MVTec AD: anomalib's `MVTecAD` under its usual name.

    Args:
        root: Folder of the data set, downloaded on first use.
        category: Category, e.g. ``"bottle"``.
        train_batch_size: Training batch size.
        eval_batch_size: Validation and test batch size.
        num_workers: Number of workers of each data loader.
        train_augmentations: Augmentations of the training images.
        val_augmentations: Augmentations of the validation images.
        test_augmentations: Augmentations of the test images.
        augmentations: Augmentations of every split that has none of its own.
        test_split_mode: How the test set is made.
        test_split_ratio: Share of the images for testing, where the mode asks for one.
        val_split_mode: How the validation set is made.
        val_split_ratio: Share of the images for validation, where the mode asks for one.
        seed: Seed of random splits.
    """
