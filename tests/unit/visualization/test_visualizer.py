"""Pictures of single photos: their proportions, what they say, where they lie, and that they never end a run."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch, PredictDataset
from PIL import Image, ImageOps
from tests.arguments import make_dpclip

from anomalib_dpclip.data.regions import Region
from anomalib_dpclip.visualization.captions import font, printable, wrapped
from anomalib_dpclip.visualization.heat_map import boxed
from anomalib_dpclip.visualization.picture import draw_picture
from anomalib_dpclip.visualization.visualizer import PictureVisualizer, picture_path, shown_item, shown_regions


def batch(paths, **fields):
    count = len(paths)
    values = {
        "pred_score": torch.linspace(0.2, 0.9, count),
        "pred_label": torch.linspace(0.2, 0.9, count) > 0.5,
        "anomaly_map": torch.linspace(0, 1, 64).reshape(1, 8, 8).repeat(count, 1, 1),
        "pred_mask": torch.zeros(count, 8, 8, dtype=torch.bool),
    }
    return ImageBatch(image=torch.zeros(count, 3, 8, 8), image_path=[str(path) for path in paths], **values | fields)


def draw(tmp_path, paths, root=None, **fields):
    trainer = SimpleNamespace(default_root_dir=tmp_path / "run", datamodule=SimpleNamespace(root=root), is_global_zero=True)
    visualizer = PictureVisualizer()
    visualizer.on_predict_start(trainer, None)
    visualizer.on_predict_batch_end(trainer, None, None, batch(paths, **fields), 0)
    visualizer.on_predict_end(trainer, None)
    return visualizer


def saved(path, size, **arguments):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 0, 200)).save(path, **arguments)
    return path


def extent(picture):
    """Width and height of the purple photo in a picture, whose map is 0 everywhere: both panels show it."""
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    purple = (abs(pixels - (200, 0, 200)) < 30).all(-1)
    rows, columns = np.flatnonzero(purple.any(1)), np.flatnonzero(purple.any(0))
    return np.diff(columns).max() - 1, len(columns), len(rows)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((400, 300), (960, 360)), ((6000, 4000), (960, 320)), ((100, 400), (240, 480)), ((1280, 10), (960, 16))],
)
def test_the_photo_keeps_its_proportions(tmp_path, size, expected):
    path = saved(tmp_path / "a.png", size)
    visualizer = draw(tmp_path, [path], anomaly_map=torch.zeros(1, 8, 8))
    with Image.open(visualizer.pictures[str(path)]) as picture:
        _, width, height = extent(picture)
    assert abs(width - expected[0]) <= 8
    assert abs(height - expected[1]) <= 8


def test_it_stands_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "a.jpg", (400, 300), exif=exif)
    with Image.open(path) as photo:
        assert ImageOps.exif_transpose(photo).size == (300, 400)
    with Image.open(draw(tmp_path, [path], anomaly_map=torch.zeros(1, 8, 8)).pictures[str(path)]) as picture:
        _, width, height = extent(picture)
    assert (round(width / 10), round(height / 10)) == (72, 48)


def test_pictures_are_laid_out_as_their_photos(tmp_path):
    root = tmp_path / "line 3"
    paths = [saved(root / name, (20, 10)) for name in ("1.png", "a/1.png", "a/1.bmp", "b/a/1.png")]
    pictures = draw(tmp_path, paths, root).pictures
    assert [pictures[str(path)].relative_to(tmp_path / "run" / "images").as_posix() for path in paths] == [
        "1.png.jpg",
        "a/1.png.jpg",
        "a/1.bmp.jpg",
        "b/a/1.png.jpg",
    ]
    # Where nobody knows the root, the last folder's name must do, and two of the same name are kept apart.
    pictures = draw(tmp_path / "rootless", paths).pictures
    assert len(set(pictures.values())) == 4
    assert {path.parent.name for path in pictures.values()} == {"line 3", "a"}


@pytest.mark.parametrize("path", ["", "a/1.png"])
def test_a_path_that_is_predicted_is_the_root(tmp_path, path):
    photos = [saved(tmp_path / "line 3" / name, (20, 10)) for name in ("a/1.png", "b/1.png")]
    loader = SimpleNamespace(dataset=PredictDataset(tmp_path / "line 3" / path))
    trainer = SimpleNamespace(default_root_dir=tmp_path / "run", predict_dataloaders=[loader], is_global_zero=True)
    visualizer = PictureVisualizer()
    visualizer.on_predict_start(trainer, None)
    visualizer.on_predict_batch_end(trainer, None, None, batch(photos[:1]), 0)
    visualizer.on_predict_end(trainer, None)
    expected = "images/1.png.jpg" if path else "images/a/1.png.jpg"
    assert visualizer.pictures == {str(photos[0]): tmp_path / "run" / expected}


def test_names_as_long_as_they_can_be(tmp_path):
    path = saved(tmp_path / ("a" * 250 + ".png"), (20, 10))
    assert draw(tmp_path, [path]).pictures[str(path)].is_file()
    names = {picture_path("x" * 250 + str(index), Path("images"), None).name for index in range(9)}
    assert len(names) == 9


def test_a_failure_is_one_warning(tmp_path, caplog):
    good = saved(tmp_path / "good.png", (20, 10))
    visualizer = draw(tmp_path, [tmp_path / "gone.png", good, tmp_path / "also gone.png"])
    assert [*visualizer.pictures] == [str(good)]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "gone.png" in caplog.text


def test_pictures_are_drawn_while_the_next_batch_is_judged(tmp_path, monkeypatch):
    drawn = []
    judged = threading.Event()

    def shown(item, **arguments):
        assert judged.wait(10)
        drawn.append(item.image_path)
        return shown_item(item, **arguments)

    monkeypatch.setattr("anomalib_dpclip.visualization.visualizer.shown_item", shown)
    first, second = (str(saved(tmp_path / name, (20, 10))) for name in ("a.png", "b.png"))
    trainer = SimpleNamespace(default_root_dir=tmp_path / "run", datamodule=None)
    visualizer = PictureVisualizer()
    visualizer.on_predict_start(trainer, None)
    visualizer.on_predict_batch_end(trainer, None, None, batch([first]), 0)
    assert not drawn  # and the model goes on
    judged.set()
    visualizer.on_predict_batch_end(trainer, None, None, batch([second]), 1)
    assert [*visualizer.pictures] == [first]
    visualizer.on_exception(trainer, None, KeyboardInterrupt())
    assert [*visualizer.pictures] == [second]  # of one batch, however many there are


def test_the_model_draws_them_by_default():
    assert isinstance(make_dpclip(backbone="mini", class_name="brick").visualizer, PictureVisualizer)


def test_captions_are_whole_and_fit():
    text = "lot 4/" + "W" * 120 + "_$5_front.png"
    lines = wrapped(text, 14, 200)
    assert "".join(lines) == text
    assert all(font(14).getlength(line) <= 200 for line in lines)
    short = wrapped(text, 14, 200, 2)
    assert len(short) == 2
    assert "".join(short).startswith("lot 4/W")
    assert "".join(short).endswith("front.png")
    assert wrapped("", 14, 200) == []
    assert printable("a\r\n\t\udcff.png") == "a????.png"


def test_other_scripts_are_drawn():
    blank = font(14).getmask("\N{REPLACEMENT CHARACTER}")
    for character in "äßçŁЖλع":
        assert printable(character) == character
        assert bytes(font(14).getmask(character)) != bytes(blank)
    assert printable("面.png") == "?.png"


@pytest.mark.parametrize("box", [(0, 0, 40, 30), (30, 0, 40, 10), (0, 29, 1, 30), (10, 10, 11, 11), (10, 5, 20, 25)])
def test_boxes_are_drawn_inside(box):
    plain = Image.new("RGB", (40, 30), (200, 0, 200))
    pixels = np.asarray(boxed(plain, [Region(*box, 0.9, 1)])).astype(int)
    left, top, right, bottom = box
    rows, columns = np.nonzero((pixels == 0).all(-1))
    assert (rows.min(), rows.max()) == (max(0, top - 1), min(29, bottom))
    assert (columns.min(), columns.max()) == (max(0, left - 1), min(39, right))
    if right - left > 1:
        assert (pixels == 255).all(-1).any()


def test_a_score_is_shown_on_its_side_of_the_threshold(tmp_path):
    path = saved(tmp_path / "a.png", (20, 10))
    item = next(iter(batch([path], pred_score=torch.tensor([0.5001]), pred_label=torch.tensor([True]))))
    shown = shown_item(item, calibrated=True)
    titles = [np.asarray(draw_picture(shown._replace(score=score))) for score in (shown.score, 0.5)]
    assert (titles[0] != titles[1]).any()


def test_a_large_photo_is_drawn_in_no_time(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    path = tmp_path / "a.jpg"
    Image.fromarray(noise).resize((6000, 4000)).save(path)
    draw(tmp_path, [path])
    start = time.process_time()
    draw(tmp_path, [path])
    elapsed = time.process_time() - start
    with Image.open(path) as photo:
        start = time.process_time()
        photo.load()
    assert elapsed < 4 * (time.process_time() - start) + 0.5


def test_regions_have_boxes_in_the_picture(tmp_path):
    path = saved(tmp_path / "a.png", (160, 80))
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[0, 2:4, 4:8] = mask[0, 7, 0] = True
    maps = torch.full((1, 8, 8), 0.6)
    item = next(iter(batch([path], anomaly_map=maps, pred_mask=mask)))
    boxes, covered = shown_regions(item, (240, 480), min_area=0)
    assert boxes == [Region(240, 60, 480, 120, pytest.approx(0.6), 14400), Region(0, 210, 60, 240, pytest.approx(0.6), 1800)]
    assert covered.sum() == 9 * 1800
    boxes, covered = shown_regions(item, (240, 480), min_area=201)  # a pixel of the map is 200 of the photo
    assert len(boxes) == 1
    assert covered.sum() == 8 * 1800
    shown = shown_item(item, calibrated=True)
    heat = np.asarray(draw_picture(shown))
    plain = np.asarray(draw_picture(shown._replace(boxes=())))
    rows, columns = np.nonzero((heat != plain).any(-1))
    assert rows.max() - rows.min() >= 240 - 61 - 16  # from the upper box's score to the lower edge
    assert columns.min() > heat.shape[1] / 2 - 2  # on the heat map, not on the photo
