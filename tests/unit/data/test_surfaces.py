import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_dpclip.data.surfaces import data_module
from anomalib_dpclip.data.surfaces.data_module import AUXILIARY_MATERIALS, TARGET_MATERIALS, Surfaces
from anomalib_dpclip.data.surfaces.defects import DEFECTS, damage_surface
from anomalib_dpclip.data.surfaces.textures import COLORS, MATERIALS, render_surface


@pytest.fixture
def few_images(monkeypatch):
    """A category of 3 training and 4 + 5 x 2 test images."""
    monkeypatch.setattr(data_module, "TRAIN_IMAGES", 3)
    monkeypatch.setattr(data_module, "NORMAL_TEST_IMAGES", 4)
    monkeypatch.setattr(data_module, "TEST_IMAGES_PER_DEFECT", 2)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("material", MATERIALS)
def test_a_surface_is_an_image_that_follows_from_the_seed(material):
    image = render_surface(material, "red", 140, np.random.default_rng(1))
    assert image.shape == (140, 140, 3)
    assert image.min() >= 0
    assert image.max() <= 1
    assert image.std(axis=(0, 1)).min() > 0.01  # a texture, not a flat colour
    np.testing.assert_array_equal(image, render_surface(material, "red", 140, np.random.default_rng(1)))
    assert not np.array_equal(image, render_surface(material, "red", 140, np.random.default_rng(2)))


@pytest.mark.parametrize("material", MATERIALS)
def test_a_surface_has_its_color(material):
    def channels(color):
        return render_surface(material, color, 70, np.random.default_rng(0)).mean(axis=(0, 1))

    assert [channels(color).argmax() for color in ("red", "green", "blue")] == [0, 1, 2]
    assert channels("yellow")[:2].min() > 2 * channels("yellow")[2]
    assert np.ptp(channels("grey")) < 0.1
    assert channels("white").mean() > channels("grey").mean() > channels("black").mean()


@pytest.mark.parametrize("material", MATERIALS)
def test_features_keep_their_size_in_a_larger_image(material):
    def energy_spectrum(size):
        tone = render_surface(material, "white", size, np.random.default_rng(5)).mean(axis=2)
        energy = np.abs(np.fft.rfft2(tone - tone.mean())) ** 2
        frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
        # The long-wave part is the light, which does spread with the image.
        texture = frequency > 0.03
        return (energy * frequency)[texture].sum() / energy[texture].sum()

    assert energy_spectrum(560) == pytest.approx(energy_spectrum(140), rel=0.25)


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("material", ["mesh", "concrete", "checkerboard"])
def test_a_mask_is_exact(defect, material):
    for seed, color in enumerate(COLORS):
        clean = render_surface(material, color, 140, np.random.default_rng(seed))
        before = clean.copy()
        damaged, mask = damage_surface(clean, defect, 48, np.random.default_rng(seed))
        np.testing.assert_array_equal(clean, before)
        assert mask.shape == (140, 140)
        assert mask.dtype == bool
        changed = np.abs(damaged - clean).max(axis=2)
        assert changed[~mask].max() == 0
        assert (changed[mask] > 1 / 255).mean() > 0.95
        assert changed[mask].mean() > 0.12  # seen at a glance
        low, high = (0.01, 0.08) if defect in {"scratch", "crack"} else (0.03, 0.14)
        assert low < mask.mean() < high


@pytest.mark.parametrize("defect", DEFECTS)
def test_area_grows_with_the_square_of_the_extent(defect):
    clean = np.full((400, 400, 3), 0.5)
    small, large = (
        np.mean([damage_surface(clean, defect, extent, np.random.default_rng(s))[1].sum() for s in range(8)])
        for extent in (40, 80)
    )
    assert large / small == pytest.approx(4, rel=0.15)


def test_a_large_image_with_a_small_defect():
    rng = np.random.default_rng(0)
    damaged, mask = damage_surface(render_surface("weave", "grey", 1120, rng), "hole", 48, rng)
    assert damaged.shape == (1120, 1120, 3)
    assert mask.sum() == pytest.approx(np.pi * 22**2, rel=0.3)


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


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("extent", [4, 300])
def test_the_smallest_and_a_huge_defect_can_be_drawn(defect, extent):
    for seed in range(5):
        _, mask = damage_surface(np.full((140, 140, 3), 0.5), defect, extent, np.random.default_rng(seed))
        assert mask.any()


def test_the_split_of_materials():
    assert TARGET_MATERIALS == ("weave", "mesh", "wood", "brushed metal")
    assert len(AUXILIARY_MATERIALS) == 6
    assert {*AUXILIARY_MATERIALS, *TARGET_MATERIALS} == set(MATERIALS)
    assert "brushed_metal" in Surfaces.target_categories


@pytest.mark.usefixtures("few_images")
def test_the_data_module_draws_and_reads_a_category(tmp_path):
    datamodule = Surfaces(root=tmp_path, category="brushed_metal", eval_batch_size=14)
    datamodule.prepare_data()
    datamodule.setup()
    assert datamodule.name == datamodule.test_data.name == "Surfaces"
    assert datamodule.category == datamodule.test_data.category == "brushed_metal"
    assert len(datamodule.train_data) == 3
    assert not datamodule.train_data.has_anomalous
    batch = next(iter(datamodule.test_dataloader()))
    assert batch.image.shape == (14, 3, 140, 140)
    assert batch.gt_label.sum() == 10
    torch.testing.assert_close(batch.gt_mask.flatten(1).any(dim=1), batch.gt_label.bool())
    assert len(datamodule.val_data) == 14
    for path, mask_path, is_damaged in zip(batch.image_path, batch.mask_path, batch.gt_label, strict=True):
        if is_damaged:
            kind, number = path.split("/")[-2:]
            assert mask_path.endswith(f"ground_truth/{kind}/{number[:-4]}_mask.png")


@pytest.mark.usefixtures("few_images")
def test_a_drawing_follows_from_its_seed_and_size(tmp_path):
    for name, arguments in {"a": {}, "b": {}, "c": {"seed": 1}}.items():
        Surfaces(root=tmp_path / name, **arguments).prepare_data()
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert all(a[path] != c[path] for path in a)
    Surfaces(root=tmp_path / "d", image_size=70, defect_size=20).prepare_data()
    assert Image.open(tmp_path / "d/weave/test/hole/000.png").size == (70, 70)


@pytest.mark.usefixtures("few_images")
def test_a_category_is_drawn_once(tmp_path):
    Surfaces(root=tmp_path).prepare_data()
    (tmp_path / "weave/train/good/000.png").write_bytes(b"kept")
    Surfaces(root=tmp_path).prepare_data()
    assert (tmp_path / "weave/train/good/000.png").read_bytes() == b"kept"
    assert [path.name for path in tmp_path.iterdir()] == ["weave"]


@pytest.mark.usefixtures("few_images")
def test_a_folder_drawn_otherwise_is_refused(tmp_path):
    Surfaces(root=tmp_path).prepare_data()
    with pytest.raises(ValueError, match=rf"{tmp_path}/weave was drawn with .*'seed': 0.*'seed': 3.*delete"):
        Surfaces(root=tmp_path, seed=3).prepare_data()
    (tmp_path / "mesh/train").mkdir(parents=True)
    with pytest.raises(ValueError, match="mesh was drawn with unknown parameters"):
        Surfaces(root=tmp_path, category="mesh").prepare_data()
    assert json.loads((tmp_path / "weave/surfaces.json").read_text())["seed"] == 0


@pytest.mark.usefixtures("few_images")
def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(data_module, "damage_surface", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Surfaces(root=tmp_path).prepare_data()
    assert list(tmp_path.iterdir()) == []


def test_two_processes_draw_at_once(tmp_path, monkeypatch):
    quicker = Surfaces(root=tmp_path, category="brick", image_size=32, defect_size=8)
    slower = Surfaces(root=tmp_path, category="brick", image_size=32, defect_size=8)
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
