from itertools import product

import numpy as np
import pytest
import torch
from anomalib.data import Folder
from PIL import Image
from tests.metadata_lines import write_lines

from anomalib_dpclip.auxiliary.dataset import AuxiliaryDataset
from anomalib_dpclip.auxiliary.synthetic import SyntheticAuxiliaryDataset, synthetic_samples
from anomalib_dpclip.clip.pretraining import Preprocessing
from anomalib_dpclip.data.json_lines import JSONLines

SIZE = (70, 70)
BLACK = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for name, count in (("good", 6), ("good_test", 2), ("bad", 2)):
        (tmp_path / name).mkdir()
        for index in range(count):
            pixels = generator.integers(100, 156, (56, 42, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    return tmp_path


@pytest.fixture
def target(folder):
    dirs = {"normal_dir": "good", "abnormal_dir": "bad", "normal_test_dir": "good_test"}
    return Folder(name="gear_wheels", root=folder, **dirs, num_workers=0)


@pytest.fixture
def samples(target):
    target.setup()
    return synthetic_samples(target)


def test_samples_are_the_normal_training_images_of_a_class_that_can_be_chosen(samples, folder, target):
    assert list(samples.columns) == ["image_path", "mask_path", "label_index", "class_name", "data_set"]
    assert samples.image_path.tolist() == [str(folder / "good" / f"{index}.png") for index in range(6)]
    assert set(samples.label_index) == {0}
    assert set(samples.data_set) == {"synthetic/gear_wheels"}
    assert set(samples.class_name) == {"object"}, "the data module names no category"
    assert synthetic_samples(target, "gear wheel", shots=4).class_name.tolist() == ["gear wheel"] * 4


def test_each_class_of_a_metadata_file_keeps_its_description(folder):
    kinds = (("good/0.png", 0, "bottle"), ("good/1.png", 0, "screw"), ("bad/0.png", 1, "screw"))
    lines = [{"image_path": path, "label": label, "class_name": name, "split": "train"} for path, label, name in kinds]
    target = JSONLines(write_lines(folder / "MVTecAD" / "full-shot.jsonl", lines), folder, num_workers=0)
    target.setup()
    assert synthetic_samples(target).class_name.tolist() == ["dark bottle", "screw"], "an anomalous image is left out"


def test_no_training_image_is_an_error_that_says_what_to_do(folder):
    path = write_lines(folder / "full-shot.jsonl", [{"image_path": "good/0.png", "label": 0, "class_name": "gear"}])
    target = JSONLines(path, folder, name="gears", num_workers=0)
    target.setup()
    with pytest.raises(ValueError, match=r'gears has none: add some .*"split": "train"'):
        synthetic_samples(target)
    with pytest.raises(ValueError, match="name it with --data"):
        synthetic_samples(None)


def test_half_of_the_images_get_a_defect_and_its_mask(samples, monkeypatch):
    """Against the images without defects, which the same seed augments alike: geometry is off, as the defect moves its seed."""
    monkeypatch.setattr("anomalib_dpclip.auxiliary.dataset.geometric", lambda _fill: lambda image, mask: (image, mask))
    damaged = SyntheticAuxiliaryDataset(samples, SIZE, BLACK, seed=3)
    normal = AuxiliaryDataset(samples, SIZE, BLACK, seed=3)
    labels = []
    for index in product(range(20), range(6)):
        item, before = damaged[index], normal[index]
        labels.append(int(item.gt_label))
        assert (item.image.shape, item.gt_mask.shape) == ((3, *SIZE), SIZE)
        assert 0 <= item.image.min() <= item.image.max() <= 1
        assert bool(item.gt_mask.any()) == bool(item.gt_label)
        changed = (item.image != before.image).any(0)
        assert not (changed & (item.gt_mask == 0)).any(), "outside the mask nothing changes"
        assert not item.gt_label or changed[item.gt_mask.bool()].float().mean() > 0.5
    # 120 tosses of a fair coin: four standard deviations are 22.
    assert 38 <= sum(labels) <= 82


def test_items_follow_from_the_seed_alone(samples):
    def items():
        before = torch.get_rng_state()
        found = [SyntheticAuxiliaryDataset(samples, SIZE, BLACK, seed=7)[0, index] for index in range(6)]
        assert torch.equal(torch.get_rng_state(), before), "the global random state is left alone"
        return found

    first = items()
    torch.rand(5)  # another global state
    for one, other in zip(first, items(), strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.gt_mask, other.gt_mask)
        assert one.gt_label == other.gt_label


def test_the_label_stays_where_the_defect_leaves_the_image(samples, monkeypatch):
    monkeypatch.setattr(
        "anomalib_dpclip.auxiliary.dataset.geometric", lambda _fill: lambda image, mask: (image, torch.zeros_like(mask))
    )
    dataset = SyntheticAuxiliaryDataset(samples, SIZE, BLACK, seed=3)
    items = [dataset[epoch, 0] for epoch in range(12)]
    assert any(item.gt_label for item in items)
    assert not any(item.gt_mask.any() for item in items)
