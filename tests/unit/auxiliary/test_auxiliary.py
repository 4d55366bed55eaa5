"""The set that is learned from: what it accepts, how it is augmented, and that all chance in it can be repeated."""

import math
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tests.metadata_lines import write_lines
from torchvision.tv_tensors import Image as ImageTensor
from torchvision.tv_tensors import Mask

from anomalib_dpclip.auxiliary.auxiliary_set import AuxiliarySet, default_auxiliary
from anomalib_dpclip.auxiliary.dataset import AuxiliaryDataset, EpochSampler, auxiliary_loader, colour_jitter, geometric
from anomalib_dpclip.clip.pretraining import Preprocessing
from anomalib_dpclip.data.images import ImageReadError

PREPROCESSING = Preprocessing((0.25, 0.5, 0.75), (1.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    rng = np.random.default_rng(0)
    lines = []
    for index in range(4):
        height, width = 20 + 4 * index, 30 - index
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / f"{index}.png")
        lines.append({"image_path": f"{index}.png", "label": index % 2, "class_name": f"part_{index // 2}"})
        if index % 2:
            mask = np.zeros((height, width), dtype=np.uint8)
            mask[:, : width // 2] = 255
            Image.fromarray(mask).save(folder / f"{index}_mask.png")
            lines[-1]["mask_path"] = f"{index}_mask.png"
    unmasked = lines[1] | {"mask_path": ""}
    write_lines(folder / "parts.jsonl", lines)
    write_lines(folder / "normal.jsonl", lines[::2])
    write_lines(folder / "unmasked.jsonl", [lines[0], unmasked])
    write_lines(folder / "half.jsonl", [lines[0], unmasked, lines[3]])
    return folder


def auxiliary_set(folder, *names, shots=None, unmasked=False):
    return AuxiliarySet([str(folder / name) for name in names], None, shots, unmasked, seed=111)


def dataset_of(folder, seed=111, name="parts.jsonl", unmasked=False, preprocessing=PREPROCESSING):
    return AuxiliaryDataset(auxiliary_set(folder, name, unmasked=unmasked).samples(None), (28, 28), preprocessing, seed)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_images_are_resized_as_the_backbone_was_trained(folder, interpolation):
    dataset = dataset_of(folder, preprocessing=PREPROCESSING._replace(interpolation=interpolation))
    plain = dataset.plain((14, 28))
    dataset.colour_jitter = dataset.geometric = lambda *images: images[0] if len(images) == 1 else images
    image = Image.open(folder / "3.png")  # taller than wide: Pillow 13 alone would begin with its columns
    resampling = Image.Resampling[interpolation.upper()]
    for each, height in ((dataset, 28), (plain, 14)):
        resized = image.resize((28, image.height), resampling).resize((28, height), resampling)
        expected = torch.from_numpy(np.array(resized)).permute(2, 0, 1) / 255
        torch.testing.assert_close(each[3].image.as_subclass(torch.Tensor), expected, rtol=0, atol=1e-6)
        # Nearest: column i shows column 27 i // 28, of which the first 13 are anomalous.
        mask = torch.tensor([27 * column // 28 < 13 for column in range(28)]).expand(height, 28)
        assert torch.equal(each[3].gt_mask, mask)
    assert torch.equal(plain[0, 3].image, plain[5, 3].image)


@pytest.mark.parametrize(
    ("target", "expected"),
    [("Visa", "MVTecAD"), ("VisA", "MVTecAD"), ("MVTec", "VisA"), ("BMAD", "VisA"), (None, "VisA"), ("Surfaces", "Surfaces")],
)
def test_default_is_the_paper_s(target, expected):
    assert default_auxiliary(target) == expected


def test_sets_are_concatenated_classes_described_and_shots_taken_of_each(folder):
    samples = auxiliary_set(folder, "parts.jsonl", "half.jsonl", unmasked=True).samples(None)
    assert len(samples) == 7
    assert set(samples.class_name) == {"part 0", "part 1"}
    samples = auxiliary_set(folder, "parts.jsonl", shots=1).samples(None)
    assert samples.class_name.tolist() == ["part 0", "part 1"]
    assert samples.label_index.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("names", "arguments", "message"),
    [
        (["normal.jsonl"], {}, "has no anomalous image: DP-CLIP learns what damage looks like"),
        (["unmasked.jsonl"], {}, r"1 of 1 anomalous images .* have no mask, the first is .*1.png"),
        (["unmasked.jsonl"], {"unmasked": True}, "1 of 1 anomalous images"),
        (["half.jsonl"], {}, r"1 of 2 anomalous images .*--model.training.auxiliary_unmasked true"),
        (["parts.jsonl"], {"shots": 0}, "shots must be at least 1, not 0"),
        ([], {}, "auxiliary names no set to learn from"),
    ],
)
def test_sets_that_cannot_be_learned_from(folder, names, arguments, message):
    with pytest.raises(ValueError, match=message):
        auxiliary_set(folder, *names, **arguments).samples(None)


def test_sets_and_folders_are_as_many_and_synthetic_defects_stand_alone(folder):
    with pytest.raises(ValueError, match="auxiliary_root names 1 folders for 2 auxiliary sets"):
        AuxiliarySet(["VisA", "MPDD"], [folder], None, unmasked=False, seed=1).prepare(None)
    with pytest.raises(ValueError, match=r"--model\.auxiliary synthetic stands alone"):
        AuxiliarySet(["synthetic", "MPDD"], None, None, unmasked=False, seed=1).prepare(None)


def test_items(folder):
    dataset = dataset_of(folder)
    assert len(dataset) == 4
    for index in range(4):
        item = dataset[0, index]
        assert (item.image.shape, item.image.dtype, item.gt_mask.shape) == ((3, 28, 28), torch.float32, (28, 28))
        assert 0 <= item.image.min() <= item.image.max() <= 1
        assert (item.gt_label, item.class_name, item.has_mask) == (index % 2, f"part {index // 2}", None)
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
    first = [dataset[2, index] for index in range(4)]
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert all(same(first[index], again[2, index]) for index in (3, 0, 2, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(same(first[index], dataset[3, index]) for index in range(4))
    assert not any(same(first[index], dataset_of(folder, seed=112)[2, index]) for index in range(4))


def epoch_of(loader, epoch):
    loader.sampler.set_epoch(epoch)
    return list(loader)


def test_epochs_are_shuffled_repeatably(folder):
    loader = auxiliary_loader(dataset_of(folder), batch_size=3, num_workers=0, seed=5)
    assert [len(batch.image_path) for batch in epoch_of(loader, 0)] == [3, 1]  # the last, smaller batch is kept
    orders = [tuple(path for batch in epoch_of(loader, epoch) for path in batch.image_path) for epoch in (0, 1, 2, 3, 4, 3)]
    assert len({tuple(sorted(order)) for order in orders}) == 1
    assert len(set(orders)) > 1
    assert orders[3] == orders[5]


def test_workers_change_nothing(folder):
    dataset = dataset_of(folder)
    alone, together = (epoch_of(auxiliary_loader(dataset, 2, num_workers, seed=5), 1) for num_workers in (0, 2))
    for one, other in zip(alone, together, strict=True):
        assert (one.image_path, one.class_name) == (other.image_path, other.class_name)
        assert same(one, other)


def test_processes_share_a_batch(folder):
    dataset = dataset_of(folder)
    alone = list(EpochSampler(dataset, num_replicas=1, rank=0, shuffle=True, seed=5))
    shares = [list(EpochSampler(dataset, num_replicas=2, rank=rank, shuffle=True, seed=5)) for rank in (0, 1)]
    assert [pair for pairs in zip(*shares, strict=True) for pair in pairs] == alone


def test_every_file_that_cannot_be_read_is_named_before_the_first_step_and_in_it(folder, tmp_path):
    parts = shutil.copytree(folder, tmp_path / "parts")
    (parts / "0.png").write_bytes(b"")
    Image.new("L", (9, 8), 255).save(parts / "1_mask.png")
    with pytest.raises(ImageReadError, match=r"(?s)^2 images or masks .*parts/0\.png.*mask .*1_mask\.png is 9x8"):
        auxiliary_set(parts, "parts.jsonl").dataset(None, None, (28, 28), PREPROCESSING)
    for index, name in enumerate((r"0\.png", r"1_mask\.png")):
        with pytest.raises(ImageReadError, match=name):
            dataset_of(parts)[0, index]


FILL = (0.25, 0.5, 0.75)
SIDE = 40


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def test_image_and_mask_move_together_as_often_as_four_coins_say():
    before = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
    before[5:20, 12:19] = 1
    both = torch.stack([before.float(), torch.zeros(SIDE, SIDE), torch.ones(SIDE, SIDE)])
    results = [geometric(FILL)(ImageTensor(both), Mask(before)) for _ in range(300)]
    for image, mask in results:
        uncovered = image[2] == FILL[2]
        assert torch.equal(image[0] == 1, mask == 1)  # nearest sampling: nothing in between
        assert torch.equal(image[0] == FILL[0], uncovered)
        assert not mask[uncovered].any()
    same = sum(torch.equal(mask, before) for _, mask in results)
    assert 8 <= same <= 32  # expected 300 / 16 = 18.75, standard deviation 4.2


def test_translation_reaches_15_percent_and_not_further():
    transform = geometric(FILL).transforms[1]
    mask = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
    mask[SIDE // 2, SIDE // 2] = 1
    shifts = torch.stack([transform(Mask(mask)).nonzero()[0] - SIDE // 2 for _ in range(300)])
    assert shifts.abs().max() == 0.15 * SIDE
    assert 0.4 < shifts.any(dim=1).float().mean() < 0.6


def test_rotation_reaches_30_degrees_and_not_further():
    transform = geometric(FILL).transforms[0]
    mask = torch.zeros(201, 201, dtype=torch.uint8)
    mask[97:104, 187:194] = 1
    angles = []
    for _ in range(200):
        rows, columns = transform(Mask(mask)).nonzero(as_tuple=True)
        angles.append(math.degrees(math.atan2(rows.float().mean() - 100, columns.float().mean() - 100)))
    assert 25 < max(map(abs, angles)) < 31
    assert min(angles) < -20 < 20 < max(angles)


def test_colour_jitter_changes_colours_and_nothing_else():
    image = Image.fromarray(np.full((4, 4, 3), (90, 120, 60), dtype=np.uint8))
    results = [np.asarray(colour_jitter()(image)) for _ in range(200)]
    assert all(result.shape == (4, 4, 3) and (result == result[0, 0]).all() for result in results)
    same = sum((result == np.asarray(image)).all() for result in results)
    assert 0 < same < 20  # 0.3^3 of them; on an even image contrast changes little, and may change nothing
