from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_dpclip.data.surfaces import data_module
from anomalib_dpclip.data.surfaces.data_module import Surfaces
from anomalib_dpclip.data.surfaces.defects import DEFECTS, damage_surface
from anomalib_dpclip.data.surfaces.textures import COLORS, MATERIALS, render_surface


@pytest.fixture(autouse=True)
def _few_images(monkeypatch):
    """A category of 3 training and 4 + 5 x 2 test images."""
    monkeypatch.setattr(data_module, "TRAIN_IMAGES", 3)
    monkeypatch.setattr(data_module, "NORMAL_TEST_IMAGES", 4)
    monkeypatch.setattr(data_module, "TEST_IMAGES_PER_DEFECT", 2)


def surface(material, color="red", size=140, seed=1):
    return render_surface(material, color, size, np.random.default_rng(seed))


@pytest.mark.parametrize("material", MATERIALS)
def test_a_surface_is_a_textured_image_of_its_colour_that_follows_from_the_seed(material):
    image = surface(material)
    assert image.shape == (140, 140, 3)
    assert 0 <= image.min() <= image.max() <= 1
    assert image.std(axis=(0, 1)).min() > 0.01
    np.testing.assert_array_equal(image, surface(material))
    assert not np.array_equal(image, surface(material, seed=2))
    means = {color: surface(material, color, 70).mean(axis=(0, 1)) for color in COLORS}
    assert [means[color].argmax() for color in ("red", "green", "blue")] == [0, 1, 2]
    assert means["yellow"][:2].min() > 2 * means["yellow"][2]
    assert np.ptp(means["grey"]) < 0.1
    assert means["white"].mean() > means["grey"].mean() > means["black"].mean()


@pytest.mark.parametrize("material", MATERIALS)
def test_features_keep_their_size_in_a_larger_image(material):
    def mean_frequency(size):
        tone = surface(material, "white", size, seed=5).mean(axis=2)
        energy = np.abs(np.fft.rfft2(tone - tone.mean())) ** 2
        frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
        # The long-wave part is the light, which does spread with the image.
        texture = frequency > 0.03
        return (energy * frequency)[texture].sum() / energy[texture].sum()

    assert mean_frequency(560) == pytest.approx(mean_frequency(140), rel=0.25)


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("material", ["mesh", "concrete", "checkerboard"])
def test_a_mask_is_exact(defect, material):
    for seed, color in enumerate(COLORS):
        clean = surface(material, color, seed=seed)
        before = clean.copy()
        damaged, mask = damage_surface(clean, defect, 48, np.random.default_rng(seed))
        np.testing.assert_array_equal(clean, before)
        assert (mask.shape, mask.dtype) == ((140, 140), bool)
        changed = np.abs(damaged - clean).max(axis=2)
        assert changed[~mask].max() == 0
        assert (changed[mask] > 1 / 255).mean() > 0.95
        assert changed[mask].mean() > 0.12  # seen at a glance
        low, high = (0.01, 0.08) if defect in {"scratch", "crack"} else (0.03, 0.14)
        assert low < mask.mean() < high


@pytest.mark.parametrize("defect", DEFECTS)
def test_area_grows_with_the_square_of_the_extent(defect):
    def areas(size, extent):
        clean = np.full((size, size, 3), 0.5)
        return [damage_surface(clean, defect, extent, np.random.default_rng(seed))[1].sum() for seed in range(8)]

    assert np.mean(areas(400, 80)) / np.mean(areas(400, 40)) == pytest.approx(4, rel=0.15)
    assert min(areas(140, 4) + areas(140, 300)) > 0  # the smallest and a huge one


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"category": "silk"}, r"'silk'.*brushed_metal"),
        ({"image_size": 0}, "image_size"),
        ({"image_size": (140, 280)}, "side of a square"),
        ({"defect_size": 3}, r"defect_size.*at least 4"),
    ],
)
def test_wrong_names_and_sizes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Surfaces(**arguments)


def test_the_data_module_draws_and_reads_a_category(tmp_path):
    datamodule = Surfaces(root=tmp_path, category="brushed_metal", eval_batch_size=14)
    datamodule.prepare_data()
    datamodule.setup()
    assert datamodule.name == datamodule.test_data.name == "Surfaces"
    assert datamodule.category == datamodule.test_data.category == "brushed_metal"
    assert (len(datamodule.train_data), len(datamodule.val_data)) == (3, 14)
    assert not datamodule.train_data.has_anomalous
    batch = next(iter(datamodule.test_dataloader()))
    assert batch.image.shape == (14, 3, 140, 140)
    assert batch.gt_label.sum() == 10
    torch.testing.assert_close(batch.gt_mask.flatten(1).any(dim=1), batch.gt_label.bool())
    for path, mask_path, is_damaged in zip(batch.image_path, batch.mask_path, batch.gt_label, strict=True):
        kind, number = path.split("/")[-2:]
        assert not is_damaged or mask_path.endswith(f"ground_truth/{kind}/{number[:-4]}_mask.png")


def test_a_drawing_follows_from_its_seed_and_size(tmp_path):
    drawings = []
    for name, arguments in {"a": {}, "b": {}, "c": {"seed": 1}}.items():
        Surfaces(root=tmp_path / name, **arguments).prepare_data()
        files = [path for path in (tmp_path / name).rglob("*") if path.is_file()]
        drawings.append({path.relative_to(tmp_path / name): path.read_bytes() for path in files})
    a, b, c = drawings
    assert a == b
    assert a.keys() == c.keys()
    assert all(a[path] != c[path] for path in a)
    Surfaces(root=tmp_path / "d", image_size=70, defect_size=20).prepare_data()
    assert Image.open(tmp_path / "d/weave/test/hole/000.png").size == (70, 70)


def test_a_category_is_drawn_once_and_not_taken_for_another(tmp_path):
    Surfaces(root=tmp_path).prepare_data()
    (tmp_path / "weave/train/good/000.png").write_bytes(b"kept")
    Surfaces(root=tmp_path).prepare_data()
    assert (tmp_path / "weave/train/good/000.png").read_bytes() == b"kept"
    assert [path.name for path in tmp_path.iterdir()] == ["weave"]
    with pytest.raises(ValueError, match=rf"{tmp_path}/weave was drawn with .*'seed': 0.*'seed': 3.*delete"):
        Surfaces(root=tmp_path, seed=3).prepare_data()
    (tmp_path / "mesh/train").mkdir(parents=True)
    with pytest.raises(ValueError, match="mesh was drawn with unknown parameters"):
        Surfaces(root=tmp_path, category="mesh").prepare_data()


def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(data_module, "damage_surface", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Surfaces(root=tmp_path).prepare_data()
    assert list(tmp_path.iterdir()) == []


def test_two_processes_draw_at_once(tmp_path, monkeypatch):
    quicker, slower = Surfaces(root=tmp_path, category="brick"), Surfaces(root=tmp_path, category="brick")
    draw = slower._draw

    def overtaken(folder):
        draw(folder)
        quicker.prepare_data()

    # Between the look whether the folder is there and the renaming there is always a moment.
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: path != tmp_path / "brick" and exists(path))
    monkeypatch.setattr(slower, "_draw", overtaken)
    slower.prepare_data()
    assert [path.name for path in tmp_path.iterdir()] == ["brick"]
