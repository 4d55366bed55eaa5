import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from PIL import Image
from skimage.measure import label, regionprops

from anomalib_dpclip.data.regions import Region, batch_regions, find_regions


def test_regions_are_those_of_scikit_image():
    heat = np.random.default_rng(0).random((30, 40), dtype=np.float32)
    mask = heat > 0.8
    expected = sorted(
        (left, top, right, bottom, properties.intensity_max, properties.area)
        for properties in regionprops(label(mask, connectivity=2), heat)
        for top, left, bottom, right in [properties.bbox]
    )
    found, kept = find_regions(heat, mask, (40, 30))
    assert len(expected) > 10
    assert sorted(found) == expected
    assert [region.score for region in found] == sorted((region.score for region in found), reverse=True)
    assert np.array_equal(kept, mask)


@pytest.mark.parametrize(("min_area", "areas", "kept_pixels"), [(4, [4, 16], 5), (5, [16], 4), (17, [], 0)])
def test_specks_are_dropped_by_their_area_in_the_photo(min_area, areas, kept_pixels):
    heat, mask = np.ones((10, 10), np.float32), np.zeros((10, 10), bool)
    mask[0, 0], mask[5:7, 5:7] = True, True
    found, kept = find_regions(heat, mask, (20, 20), min_area)
    assert sorted(region.area for region in found) == areas
    assert kept.sum() == kept_pixels


def test_a_scaled_box_keeps_a_pixel_within_the_picture_and_a_score_four_digits():
    region = Region(517, 0, 518, 1, 0.93756, 5000).scaled(10 / 518, 10 / 518)
    assert region.as_json() == {"box": [9, 0, 10, 1], "score": 0.9376, "area": 2}


def test_regions_of_a_batch_are_in_pixels_of_the_photos(tmp_path, caplog):
    Image.new("RGB", (8, 16)).save(tmp_path / "a.png")
    maps = torch.zeros(3, 4, 4)
    maps[:2, 1, 1] = 0.75
    paths = [str(tmp_path / name) for name in ("a.png", "gone.png", "never_there_but_normal.png")]
    batch = ImageBatch(image=torch.zeros(3, 3, 4, 4), image_path=paths, anomaly_map=maps, pred_mask=maps > 0.5)
    assert batch_regions(batch) == [[Region(2, 4, 4, 8, 0.75, 8)], [], []]
    assert "gone.png" in caplog.text
    assert batch_regions(batch, min_area=9) == [[], [], []]
    assert batch_regions(ImageBatch(image=torch.zeros(1, 3, 4, 4), image_path=paths[:1])) == [[]]
