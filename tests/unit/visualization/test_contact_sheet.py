from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from PIL import Image

from anomalib_dpclip.visualization.contact_sheet import CONTACT_SHEET, ContactSheet

COLOUR = (200, 0, 200)


@pytest.fixture
def trainer(tmp_path):
    return SimpleNamespace(is_global_zero=True, default_root_dir=tmp_path / "run")


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.full((40, 80, 3), COLOUR, np.uint8)).save(path)
    return path


@pytest.fixture
def add(trainer):
    def add_batch(sheet, paths, scores, truths, **fields):
        count = len(paths)
        mask = torch.zeros(count, 8, 8, dtype=torch.bool)
        mask[:, 2:4, 2:4] = True
        values = {
            "pred_score": torch.tensor(scores),
            "pred_label": torch.tensor(scores) > 0.5,
            "gt_label": torch.tensor(truths),
            "gt_mask": mask,
            "anomaly_map": torch.linspace(0, 1, 64).reshape(1, 8, 8).repeat(count, 1, 1),
            "image_path": [str(path) for path in paths],
        }
        batch = ImageBatch(image=torch.zeros(count, 3, 8, 8), **values | fields)
        sheet.on_test_batch_end(trainer, None, None, batch, 0)
        return sheet

    return add_batch


def scores_of(sheet):
    return {
        title.partition(":")[0]: [round(thumbnail.score, 2) for thumbnail in thumbnails] for title, thumbnails in sheet.rows()
    }


def test_sorts_images_by_decision(add, photo):
    sheet = ContactSheet(columns=2)
    for scores, truths in (
        ([0.1, 0.9, 0.4], [1, 1, 1]),
        ([0.2, 0.95, 0.6, 0.45, 0.3], [0, 0, 1, 0, 1]),
        ([0.7], [0]),
        ([0.8, 0.7, 0.15, 0.05], [1, 1, 0, 0]),
    ):
        add(sheet, [photo] * len(scores), scores, truths)
    assert list(scores_of(sheet).items()) == [
        ("Missed defects", [0.1, 0.3]),  # of 0.1, 0.3, 0.4: the lowest score is the worst miss
        ("False alarms", [0.95, 0.7]),
        ("Narrowest finds", [0.6, 0.7]),
        ("Narrowest passes", [0.45, 0.2]),
        ("Clearest finds", [0.9, 0.8]),
        ("Clearest passes", [0.05, 0.15]),
    ]
    assert [heading.rpartition(" (")[2] for heading, _ in sheet.rows()] == ["2 of 3)", "2 of 2)", *["2 of 4)"] * 4]


def test_no_photo_stands_twice(add, photo):
    sheet = add(ContactSheet(columns=3), [photo] * 6, [0.9, 0.8, 0.7, 0.6, 0.1, 0.2], [1, 1, 1, 1, 0, 0])
    assert [len(shown) for shown in scores_of(sheet).values()] == [0, 0, 3, 2, 1]


def test_keeps_the_extremes_only_whatever_the_order(add, photo):
    sheet = ContactSheet(columns=3)
    for score in np.random.default_rng(0).permutation(50) / 100:  # all missed
        add(sheet, [photo], [score], [1])
    (kept,) = sheet._kept.values()
    assert [round(thumbnail.score, 2) for thumbnail in kept] == [0.0, 0.01, 0.02, 0.47, 0.48, 0.49]
    assert sheet.rows()[0][0].endswith("(3 of 50)")


@pytest.mark.parametrize("has_box", [True, False])
def test_anomalous_without_a_box_is_said(add, photo, has_box):
    sheet = add(ContactSheet(), [photo], [0.9], [1], pred_mask=torch.full((1, 8, 8), has_box))
    ((_, thumbnails),) = [row for row in sheet.rows() if row[1]]
    assert thumbnails[0].is_bare == (not has_box)


def test_writes_one_picture_of_this_run(add, trainer, photo):
    sheet = add(ContactSheet(columns=3), [photo], [0.3], [1])
    sheet.setup(trainer, None, "test")
    add(sheet, [photo] * 4, [0.1, 0.9, 0.8, 0.2], [1, 0, 1, 0])
    sheet.on_test_end(trainer, None)
    assert [path.name for path in trainer.default_root_dir.iterdir()] == [CONTACT_SHEET]
    with Image.open(trainer.default_root_dir / CONTACT_SHEET) as image:
        pixels = np.asarray(image.convert("RGB"))
    # Where the map is low, the photo shows as it is: in the upper eighth of each of four thumbnails of 192 x 96 pixels.
    as_it_is = (abs(pixels.astype(int) - COLOUR) < 25).all(-1).sum()
    assert 3 * 1000 < as_it_is < 4 * 6000


@pytest.mark.parametrize("missing", ["pred_label", "pred_score", "gt_label", "anomaly_map", "image_path"])
def test_without_labels_or_decisions_there_is_no_sheet(add, trainer, photo, missing):
    sheet = add(ContactSheet(), [photo], [0.1], [1], **{missing: None})
    sheet.on_test_end(trainer, None)
    assert not trainer.default_root_dir.exists()


def test_an_image_that_cannot_be_shown_is_left_out(add, photo, caplog):
    sheet = add(ContactSheet(), [photo.with_name("gone.png"), photo], [0.1, 0.2], [1, 1])
    assert scores_of(sheet)["Missed defects"] == [0.2]
    assert "gone.png" in caplog.text


@pytest.mark.parametrize(
    ("size", "name"), [((1280, 10), "US$5_$6.png"), ((10, 1280), "a" * 200 + ".png"), ((1, 1), "\udcff.png")]
)
def test_line_scans_and_odd_names(add, trainer, tmp_path, caplog, size, name):
    path = tmp_path / name
    try:
        Image.new("RGB", size, COLOUR).save(path)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    sheet = add(ContactSheet(), [path], [0.1], [1])
    sheet.on_test_end(trainer, None)
    assert not caplog.records
    assert (trainer.default_root_dir / CONTACT_SHEET).is_file()


def test_a_full_disk_does_not_end_the_test(add, trainer, photo, caplog):
    trainer.default_root_dir.write_text("a file where the folder should be")
    sheet = add(ContactSheet(), [photo], [0.1], [1])
    sheet.on_test_end(trainer, None)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_predictions_have_a_sheet_without_truth(add, trainer, photo):
    sheet = ContactSheet(columns=2)
    sheet.setup(trainer, None, "predict")
    add(sheet, [photo] * 4, [0.9, 0.6, 0.4, 0.1], [0] * 4, gt_label=None, gt_mask=None)
    assert list(scores_of(sheet).values()) == [[0.9, 0.6], [0.4, 0.1]]
    sheet.on_predict_end(trainer, None)
    assert (trainer.default_root_dir / CONTACT_SHEET).is_file()
