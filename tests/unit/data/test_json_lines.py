from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from anomalib import TaskType
from anomalib.data import MVTecAD
from tests.metadata_lines import write_lines
from tests.pictures import mask, picture
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_dpclip.data.json_lines import JSONLines

COLUMNS = ["image_path", "split", "label_index", "mask_path"]


@pytest.fixture
def mvtec(tmp_path):
    root = tmp_path / "MVTecAD"
    for category in ("bottle", "metal_nut"):
        for index in range(3):
            picture(root / category / "train" / "good" / f"{index:03}.png", value=index)
            picture(root / category / "test" / "good" / f"{index:03}.png", value=50 + index)
            for defect in ("broken", "scratch"):
                picture(root / category / "test" / defect / f"{index:03}.png", value=200 + index)
                mask(root / category / "ground_truth" / defect / f"{index:03}_mask.png")
    return root


def lines_of(root, category):
    for path in sorted((root / category).glob("*/*/*.png")):
        split, label, name = path.parts[-3:]
        if split != "ground_truth":
            line = {"image_path": f"{category}/{split}/{label}/{name}", "label": label != "good", "class_name": category}
            if label != "good":
                line["mask_path"] = f"{category}/ground_truth/{label}/{path.stem}_mask.png"
            yield line | {"split": split}


def set_up(path, root, category=None, **arguments):
    datamodule = JSONLines(path, root, category, num_workers=0, **arguments)
    datamodule.setup()
    return datamodule


def labelled(path, root, category=None, **arguments):
    return set_up(path, root, category, **arguments).test_data


@pytest.fixture
def metadata(mvtec, tmp_path):
    lines = [*lines_of(mvtec, "bottle"), *lines_of(mvtec, "metal_nut")]
    return write_lines(tmp_path / "metadata" / "MVTec" / "full-shot.jsonl", lines)


def test_same_samples_as_the_host_reads_from_the_same_folders(mvtec, metadata):
    expected, actual = MVTecAD(mvtec, "bottle", num_workers=0), set_up(metadata, mvtec, "bottle")
    expected.setup()
    for split in ("train_data", "val_data", "test_data"):
        theirs, ours = getattr(expected, split), getattr(actual, split)
        assert ours.samples[COLUMNS].values.tolist() == theirs.samples[COLUMNS].values.tolist()
        assert ours.task == theirs.task == TaskType.SEGMENTATION
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one.image, other.image)
            assert torch.equal(one.gt_mask, other.gt_mask)
            assert one.gt_label == other.gt_label
            assert (one.image_path, one.mask_path) == (other.image_path, other.mask_path)


def test_names_of_data_set_and_classes(mvtec, metadata):
    datamodule = set_up(metadata, mvtec)
    assert (datamodule.name, datamodule.category) == ("MVTec", "")
    batch = next(iter(datamodule.test_dataloader()))
    assert batch.class_name == [item.class_name for item in datamodule.test_data]
    assert set(batch.class_name) == {"dark bottle", "metal nut which has four notched edges"}
    renamed = labelled(metadata, mvtec, "metal_nut", name="workshop")
    assert (renamed.name, renamed[0].class_name) == ("workshop", "metal nut")


def test_category_filter(mvtec, metadata):
    assert len(labelled(metadata, mvtec)) == 18
    assert set(labelled(metadata, mvtec, "metal_nut").samples.class_name) == {"metal_nut"}
    with pytest.raises(ValueError, match=r"no category 'screw' in .*: it has 'bottle', 'metal_nut'"):
        labelled(metadata, mvtec, "screw")


def without_masks(mvtec, path, keep=0):
    """Metadata of the bottles, of which only some anomalous ones have masks."""
    lines = list(lines_of(mvtec, "bottle"))
    for line in [line for line in lines if "mask_path" in line][keep:]:
        del line["mask_path"]
    return write_lines(path, lines)


def test_without_masks_there_are_image_labels_only(mvtec, tmp_path):
    path = without_masks(mvtec, tmp_path / "x.jsonl")
    datamodule = set_up(path, mvtec)
    assert datamodule.task == TaskType.CLASSIFICATION
    batch = next(iter(datamodule.test_dataloader()))
    assert batch.gt_mask is batch.mask_path is None
    assert sorted(batch.gt_label.tolist()) == [0] * 3 + [1] * 6
    with pytest.raises(ValueError, match=r"none of 6 anomalous images in .* has a mask, the first is"):
        set_up(path, mvtec, task="segmentation")


def test_where_some_have_masks_the_others_are_left_out_and_counted(mvtec, tmp_path, caplog):
    path = without_masks(mvtec, tmp_path / "x.jsonl", keep=2)
    batch = next(iter(set_up(path, mvtec).test_dataloader()))
    assert f"4 of 6 anomalous images in {path} have no mask, the first is {mvtec}/bottle/test/broken/002.png" in caplog.text
    masked = [Path(path).parts[-2:] in {("broken", "000.png"), ("broken", "001.png")} for path in batch.image_path]
    assert batch.has_mask.tolist() == [one or not label for one, label in zip(masked, batch.gt_label, strict=True)]
    assert batch.gt_mask.flatten(1).any(dim=1).tolist() == masked
    assert batch.gt_mask.sum() == 2 * 18
    assert next(iter(set_up(path, mvtec, task="classification").test_dataloader())).gt_mask is None


@pytest.mark.parametrize(("label", "expected"), [(True, [1] * 6), (False, [0] * 3)])
def test_anomalous_or_normal_images_only(mvtec, tmp_path, label, expected):
    lines = [line for line in lines_of(mvtec, "bottle") if line["label"] == label or line["split"] == "train"]
    datamodule = set_up(write_lines(tmp_path / "x.jsonl", lines), mvtec)
    batch = next(iter(datamodule.val_dataloader()))
    assert batch.gt_label.tolist() == expected
    assert not label or batch.gt_mask.flatten(1).any(dim=1).all()
    assert len(datamodule.train_data) == 3


def test_images_of_different_sizes_are_resized_before_they_meet(folder, tmp_path):
    picture(folder / "Wide.png", size=(40, 10))
    mask(folder / "wide_mask.png", size=(40, 10))
    lines = [
        {"image_path": "Wide.png", "label": 1, "class_name": "c", "mask_path": "wide_mask.png"},
        {"image_path": "a.png", "label": 0, "class_name": "c"},
    ]
    datamodule = JSONLines(write_lines(tmp_path / "x.jsonl", lines), folder, num_workers=0)
    transform = Compose([Resize((20, 20)), Normalize([0.5] * 3, [0.5] * 3)])
    datamodule.trainer = SimpleNamespace(model=SimpleNamespace(pre_processor=SimpleNamespace(transform=transform)))
    datamodule.setup()
    batch = next(iter(datamodule.test_dataloader()))
    assert batch.image.shape == (2, 3, 20, 20)
    # Nearest: row i shows row i // 2 (2..4 are set), column i column 2 i (3..8 are set).
    expected = torch.zeros(2, 20, 20, dtype=torch.bool)
    expected[0, 4:10, 2:5] = True
    assert torch.equal(batch.gt_mask, expected)


def test_training_images_are_asked_for_only_where_needed(folder, tmp_path):
    path = write_lines(tmp_path / "x.jsonl", [{"image_path": "a.png", "label": 0, "class_name": "c"}])
    with pytest.raises(ValueError, match=r'x\.jsonl has no line with "split": "train"'):
        set_up(path, folder).train_dataloader()
    for mode in ("from_train", "synthetic"):
        with pytest.raises(ValueError, match=f"val_split_mode {mode} needs training images"):
            set_up(path, folder, val_split_mode=mode)
    with pytest.raises(ValueError, match="val_split_mode from_dir: a metadata file has no validation split"):
        JSONLines(path, folder, val_split_mode="from_dir")


def test_the_hosts_own_splits(mvtec, metadata, tmp_path):
    datamodule = set_up(metadata, mvtec, val_split_mode="from_test", val_split_ratio=0.5, seed=1)
    test, validated = set(datamodule.test_data.samples.image_path), set(datamodule.val_data.samples.image_path)
    assert not test & validated
    assert len(test | validated) == 18
    assert len(next(iter(datamodule.train_dataloader())).class_name) == 6
    lines = [{"image_path": f"{name}.png", "label": 0, "class_name": "c"} for name in "abc"]
    for name in "abc":
        picture(tmp_path / f"{name}.png", size=(128, 128))
    synthetic = set_up(write_lines(tmp_path / "x.jsonl", lines), tmp_path, test_split_mode="synthetic")
    assert sorted(synthetic.test_data.samples.label_index) == [0, 0, 1]
