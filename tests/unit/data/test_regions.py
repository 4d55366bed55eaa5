"""Connected regions of a mask, in pixels of the photo."""

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from PIL import Image
from skimage.measure import label, regionprops

from anomalib_dpclip.data.images import ImageReadError, photo_size
from anomalib_dpclip.data.regions import Region, batch_regions, find_regions


def some_map(seed=0, shape=(30, 40)):
    heat = np.random.default_rng(seed).random(shape, dtype=np.float32)
    return heat, heat > 0.8


def test_regions_are_those_of_scikit_image():
    heat, mask = some_map()
    expected = sorted(
        (top, left, bottom, right, properties.intensity_max, properties.area)
        for properties in regionprops(label(mask, connectivity=2), heat)
        for top, left, bottom, right in [properties.bbox]
    )
    found, kept = find_regions(heat, mask, (40, 30))
    assert len(expected) > 10
    assert sorted((r.top, r.left, r.bottom, r.right, r.score, r.area) for r in found) == expected
    assert [r.score for r in found] == sorted((r.score for r in found), reverse=True)
    assert np.array_equal(kept, mask)


def test_boxes_and_areas_are_in_pixels_of_the_photo():
    heat, mask = np.zeros((10, 10), np.float32), np.zeros((10, 10), bool)
    mask[2:4, 5:8], heat[3, 6] = True, 0.9
    assert find_regions(heat, mask, (200, 50))[0] == [Region(100, 10, 160, 20, pytest.approx(0.9), 600)]


def test_specks_are_dropped_by_their_area_in_the_photo():
    heat, mask = np.ones((10, 10), np.float32), np.zeros((10, 10), bool)
    mask[0, 0], mask[5:7, 5:7] = True, True
    found, kept = find_regions(heat, mask, (20, 20), min_area=5)  # 4 pixels and 16
    assert [region.area for region in found] == [16]
    assert kept.sum() == 4
    assert kept[5, 5]
    assert len(find_regions(heat, mask, (20, 20), min_area=4)[0]) == 2
    found, kept = find_regions(heat, mask, (20, 20), min_area=17)
    assert found == []
    assert not kept.any()


def test_nothing_anomalous_has_no_region():
    heat, kept = find_regions(np.zeros((4, 4), np.float32), np.zeros((4, 4), bool), (4, 4))
    assert heat == []
    assert not kept.any()


def test_a_scaled_box_keeps_a_pixel_within_the_picture():
    region = Region(517, 0, 518, 1, 0.7, 1)
    assert region.scaled(10 / 518, 10 / 518)[:4] == (9, 0, 10, 1)


def test_as_json():
    assert Region(1, 2, 3, 4, 0.93756, 7).as_json() == {"box": [1, 2, 3, 4], "score": 0.9376, "area": 7}


def test_the_size_of_a_photo_is_that_of_the_upright_one(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGB", (30, 20)).save(tmp_path / "plain.jpg")
    assert photo_size(tmp_path / "turned.jpg") == (20, 30)
    assert photo_size(tmp_path / "plain.jpg") == (30, 20)
    (tmp_path / "none.jpg").write_bytes(b"none")
    with pytest.raises(ImageReadError, match=r"none\.jpg"):
        photo_size(tmp_path / "none.jpg")


def test_regions_of_a_batch(tmp_path, caplog):
    Image.new("RGB", (8, 16)).save(tmp_path / "a.png")
    maps = torch.zeros(3, 4, 4)
    maps[:2, 1, 1] = 0.75
    paths = [str(tmp_path / name) for name in ("a.png", "gone.png", "never_there_but_normal.png")]
    batch = ImageBatch(image=torch.zeros(3, 3, 4, 4), image_path=paths, anomaly_map=maps, pred_mask=maps > 0.5)
    assert batch_regions(batch) == [[Region(2, 4, 4, 8, 0.75, 8)], [], []]
    assert "gone.png" in caplog.text
    assert batch_regions(batch, min_area=9) == [[], [], []]
    assert batch_regions(ImageBatch(image=torch.zeros(1, 3, 4, 4), image_path=paths[:1])) == [[]]
