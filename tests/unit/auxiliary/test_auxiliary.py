"""The set that is learned from: what it accepts, and that all chance in it can be repeated."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_dpclip.auxiliary.auxiliary_set import AuxiliarySet, default_auxiliary
from anomalib_dpclip.auxiliary.dataset import AuxiliaryDataset, EpochSampler, auxiliary_loader
from anomalib_dpclip.clip.preprocessing import Preprocessing
from anomalib_dpclip.data.images import ImageReadError

PREPROCESSING = Preprocessing((0.25, 0.5, 0.75), (1.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four images, of sizes of their own, two of them anomalous with a mask of their left half."""
    folder = tmp_path_factory.mktemp("parts")
    rng = np.random.default_rng(0)
    lines = []
    for index in range(4):
        height, width = 20 + 4 * index, 30 - index
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / f"{index}.png")
        line = {"image_path": f"{index}.png", "label": index % 2, "class_name": f"part_{index // 2}"}
        if index % 2:
            mask = np.zeros((height, width), dtype=np.uint8)
            mask[:, : width // 2] = 255
            Image.fromarray(mask).save(folder / f"{index}_mask.png")
            line["mask_path"] = f"{index}_mask.png"
        lines.append(line)
    write(folder / "parts.jsonl", lines)
    write(folder / "normal.jsonl", lines[::2])
    unmasked = {name: value for name, value in lines[1].items() if name != "mask_path"}
    write(folder / "unmasked.jsonl", [lines[0], unmasked])
    write(folder / "half.jsonl", [lines[0], unmasked, lines[3]])
    return folder


def write(path, lines):
    path.write_text("\n".join(map(json.dumps, lines)))


def samples_of(folder, *names, shots=None, unmasked=False):
    sources = [str(folder / name) for name in names or ["parts.jsonl"]]
    return AuxiliarySet(sources, None, shots, unmasked, seed=111).samples(None)


def dataset_of(folder, seed=111, name="parts.jsonl", **arguments):
    return AuxiliaryDataset(samples_of(folder, name, **arguments), (28, 28), PREPROCESSING, seed)


def test_images_are_resized_as_the_backbone_was_trained(folder):
    bilinear = AuxiliaryDataset(samples_of(folder), (28, 28), PREPROCESSING._replace(interpolation="bilinear"), 111)
    image = Image.open(folder / "3.png")  # taller than wide: Pillow 13 alone would begin with its columns
    for dataset, resampling in ((dataset_of(folder), Image.Resampling.BICUBIC), (bilinear, Image.Resampling.BILINEAR)):
        dataset.colour_jitter = dataset.geometric = lambda *images: images[0] if len(images) == 1 else images
        resized = image.resize((28, image.height), resampling).resize((28, 28), resampling)
        expected = torch.from_numpy(np.array(resized)).permute(2, 0, 1) / 255
        torch.testing.assert_close(dataset[3].image.as_subclass(torch.Tensor), expected, rtol=0, atol=1e-6)
        # Nearest: column i shows column 27 i // 28, of which the first 13 are anomalous.
        assert torch.equal(dataset[3].gt_mask, torch.tensor([27 * column // 28 < 13 for column in range(28)]).expand(28, 28))


def test_plain_images_are_neither_augmented_nor_of_the_training_s_size(folder):
    plain = dataset_of(folder).plain((14, 14))
    first, again = plain[0, 3], plain[5, 3]
    image = Image.open(folder / "3.png")
    resized = image.resize((14, image.height), Image.Resampling.BICUBIC).resize((14, 14), Image.Resampling.BICUBIC)
    expected = torch.from_numpy(np.array(resized)).permute(2, 0, 1) / 255
    assert torch.equal(first.image, again.image)
    torch.testing.assert_close(first.image.as_subclass(torch.Tensor), expected, rtol=0, atol=1e-6)
    assert first.gt_mask.shape == (14, 14)


@pytest.mark.parametrize(
    ("target", "expected"),
    [("Visa", "MVTecAD"), ("VisA", "MVTecAD"), ("MVTec", "VisA"), ("BMAD", "VisA"), (None, "VisA"), ("Surfaces", "Surfaces")],
)
def test_default_is_the_paper_s(target, expected):
    assert default_auxiliary(target) == expected


def test_sets_are_concatenated_and_classes_described(folder):
    samples = samples_of(folder, "parts.jsonl", "half.jsonl", unmasked=True)
    assert len(samples) == 7
    assert set(samples.class_name) == {"part 0", "part 1"}


def test_shots(folder):
    samples = samples_of(folder, shots=1)
    assert samples.class_name.tolist() == ["part 0", "part 1"]
    assert samples.label_index.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("normal.jsonl", {}, "has no anomalous image: DP-CLIP learns what damage looks like"),
        ("unmasked.jsonl", {}, r"1 of 1 anomalous images .* have no mask, the first is .*1.png"),
        ("unmasked.jsonl", {"unmasked": True}, "1 of 1 anomalous images"),
        ("half.jsonl", {}, r"1 of 2 anomalous images .*--model.training.auxiliary_unmasked true"),
        ("parts.jsonl", {"shots": 0}, "shots must be at least 1, not 0"),
    ],
)
def test_sets_that_cannot_be_learned_from(folder, name, arguments, message):
    with pytest.raises(ValueError, match=message):
        samples_of(folder, name, **arguments)


def test_no_set_at_all():
    with pytest.raises(ValueError, match="auxiliary names no set to learn from"):
        AuxiliarySet([], None, None, unmasked=False, seed=1).samples(None)


def test_items(folder):
    dataset = dataset_of(folder)
    assert len(dataset) == 4
    for index in range(4):
        item = dataset[0, index]
        assert item.image.shape == (3, 28, 28)
        assert item.image.dtype == torch.float32
        assert 0 <= item.image.min() <= item.image.max() <= 1
        assert item.gt_mask.shape == (28, 28)
        assert item.gt_label == index % 2
        assert item.class_name == f"part {index // 2}"
        assert item.has_mask is None
        assert bool(item.gt_mask.any()) <= bool(index % 2)


def test_unknown_masks_are_marked(folder):
    dataset = dataset_of(folder, name="half.jsonl", unmasked=True)
    assert [bool(dataset[0, index].has_mask) for index in range(3)] == [True, False, True]
    assert not dataset[0, 1].gt_mask.any()
    assert dataset[0, 1].gt_label == 1


def same(one, other):
    return torch.equal(one.image, other.image) and torch.equal(one.gt_mask, other.gt_mask)


def test_chance_follows_from_seed_epoch_and_index_alone(folder):
    dataset, again = dataset_of(folder), dataset_of(folder)
    torch.manual_seed(1)
    first = [dataset[2, index] for index in range(4)]
    torch.manual_seed(2)
    assert all(same(first[index], again[2, index]) for index in (3, 0, 2, 1))
    assert not any(same(first[index], dataset[3, index]) for index in range(4))
    assert not any(same(first[index], dataset_of(folder, seed=112)[2, index]) for index in range(4))


def test_the_global_random_state_stays(folder):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    dataset_of(folder)[0, 1]
    assert torch.rand(1) == expected


def epoch_of(loader, epoch):
    loader.sampler.set_epoch(epoch)
    return list(loader)


def test_epochs_are_shuffled_repeatably(folder):
    loader = auxiliary_loader(dataset_of(folder), batch_size=3, num_workers=0, seed=5)
    batches = epoch_of(loader, 0)
    assert [len(batch.image_path) for batch in batches] == [3, 1]  # the last, smaller batch is kept
    orders = [[path for batch in epoch_of(loader, epoch) for path in batch.image_path] for epoch in range(6)]
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert [path for batch in epoch_of(loader, 3) for path in batch.image_path] == orders[3]


def test_workers_change_nothing(folder):
    dataset = dataset_of(folder)
    alone = epoch_of(auxiliary_loader(dataset, batch_size=2, num_workers=0, seed=5), 1)
    together = epoch_of(auxiliary_loader(dataset, batch_size=2, num_workers=2, seed=5), 1)
    for one, other in zip(alone, together, strict=True):
        assert one.image_path == other.image_path
        assert one.class_name == other.class_name
        assert same(one, other)


def test_processes_share_a_batch(folder):
    dataset = dataset_of(folder)
    alone = list(EpochSampler(dataset, num_replicas=1, rank=0, shuffle=True, seed=5))
    shares = [list(EpochSampler(dataset, num_replicas=2, rank=rank, shuffle=True, seed=5)) for rank in (0, 1)]
    assert [pair for pairs in zip(*shares, strict=True) for pair in pairs] == alone


def test_every_file_that_cannot_be_read_is_named_before_the_first_step(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "parts")
    (tmp_path / "parts" / "0.png").write_bytes(b"")
    Image.new("L", (9, 8), 255).save(tmp_path / "parts" / "1_mask.png")
    auxiliary = AuxiliarySet(str(tmp_path / "parts" / "parts.jsonl"), None, None, unmasked=False, seed=1)
    with pytest.raises(ImageReadError, match=r"(?s)^2 images or masks .*parts/0\.png.*mask .*1_mask\.png is 9x8"):
        auxiliary.dataset(None, None, (28, 28), PREPROCESSING)


def test_workers_are_chosen_by_the_machine(folder, monkeypatch):
    monkeypatch.setattr("anomalib_dpclip.auxiliary.dataset.default_num_workers", lambda devices: 5 - devices)
    assert auxiliary_loader(dataset_of(folder), 2, None, seed=5, world_size=2).num_workers == 3
    assert auxiliary_loader(dataset_of(folder), 2, 0, seed=5).num_workers == 0


def test_an_image_that_cannot_be_read_is_named(folder, tmp_path):
    whole, mask = folder / "1.png", folder / "1_mask.png"
    (tmp_path / "whole.png").write_bytes(whole.read_bytes())
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:200])
    (tmp_path / "mask.png").write_bytes(mask.read_bytes())
    write(tmp_path / "a.jsonl", [{"image_path": "cut.png", "label": 1, "class_name": "x", "mask_path": "mask.png"}])
    with pytest.raises(ImageReadError, match=r"cut.png"):
        dataset_of(tmp_path, name="a.jsonl")[0, 0]
    Image.new("L", (9, 8), 255).save(tmp_path / "mask.png")
    write(tmp_path / "b.jsonl", [{"image_path": "whole.png", "label": 1, "class_name": "x", "mask_path": "mask.png"}])
    with pytest.raises(ImageReadError, match=r"mask.png"):
        dataset_of(tmp_path, name="b.jsonl")[0, 0]
