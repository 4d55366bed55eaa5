import threading
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch, PredictDataset
from PIL import Image
from scipy.ndimage import binary_erosion
from tests.pictures import turned

from anomalib_dpclip.data.regions import Region
from anomalib_dpclip.visualization.heat_map import COLORS, OPACITY, boxed, heat_map, outlined
from anomalib_dpclip.visualization.layout import font, printable, wrapped
from anomalib_dpclip.visualization.likeness import Likeness
from anomalib_dpclip.visualization.picture import draw_picture, show
from anomalib_dpclip.visualization.visualizer import PictureVisualizer, picture_path


def batch(paths, **fields):
    count = len(paths)
    values = {
        "pred_score": torch.linspace(0.2, 0.9, count),
        "pred_label": torch.linspace(0.2, 0.9, count) > 0.5,
        "anomaly_map": torch.linspace(0, 1, 64).reshape(1, 8, 8).repeat(count, 1, 1),
        "pred_mask": torch.zeros(count, 8, 8, dtype=torch.bool),
    }
    return ImageBatch(image=torch.zeros(count, 3, 8, 8), image_path=[str(path) for path in paths], **values | fields)


def draw(folder, paths, root=None, **trainer):
    trainer = SimpleNamespace(default_root_dir=folder, datamodule=SimpleNamespace(root=root), **trainer)
    visualizer = PictureVisualizer()
    visualizer.on_predict_start(trainer, None)
    visualizer.on_predict_batch_end(trainer, None, None, batch(paths), 0)
    visualizer.on_predict_end(trainer, None)
    return visualizer.pictures


def saved(path, size, **arguments):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 0, 200)).save(path, **arguments)
    return path


@pytest.mark.parametrize(
    ("size", "options", "expected"),
    [
        ((400, 300), {}, (960, 360)),
        ((6000, 4000), {}, (960, 320)),
        ((100, 400), {}, (240, 480)),
        ((1280, 10), {}, (960, 16)),  # above each other, and twice as long
        ((400, 300), {"exif": turned()}, (720, 480)),  # upright
    ],
)
def test_the_photo_keeps_its_proportions(tmp_path, size, options, expected):
    path = saved(tmp_path / "a.jpg", size, **options)
    (item,) = batch([path], anomaly_map=torch.zeros(1, 8, 8))
    pixels = np.asarray(draw_picture(item, is_calibrated=True)).astype(int)
    purple = (abs(pixels - (200, 0, 200)) < 30).all(-1)
    assert (purple.any(0).sum(), purple.any(1).sum()) == pytest.approx(expected, abs=8)


def test_pictures_are_laid_out_as_their_photos(tmp_path):
    root = tmp_path / "line 3"
    paths = [saved(root / name, (20, 10)) for name in ("1.png", "a/1.png", "a/1.bmp", "b/a/1.png")]
    pictures = draw(tmp_path / "run", paths, root)
    assert [pictures[str(path)].relative_to(tmp_path / "run" / "images").as_posix() for path in paths] == [
        "1.png.jpg",
        "a/1.png.jpg",
        "a/1.bmp.jpg",
        "b/a/1.png.jpg",
    ]
    # Where nobody knows the root, the last folder's name must do, and two of the same name are kept apart.
    pictures = draw(tmp_path / "rootless", paths)
    assert len(set(pictures.values())) == 4
    assert {path.parent.name for path in pictures.values()} == {"line 3", "a"}


@pytest.mark.parametrize(("path", "expected"), [("", "images/a/1.png.jpg"), ("a/1.png", "images/1.png.jpg")])
def test_a_path_that_is_predicted_is_the_root(tmp_path, path, expected):
    photo, _ = (saved(tmp_path / "line 3" / name, (20, 10)) for name in ("a/1.png", "b/1.png"))
    loader = SimpleNamespace(dataset=PredictDataset(tmp_path / "line 3" / path))
    assert draw(tmp_path / "run", [photo], predict_dataloaders=[loader]) == {str(photo): tmp_path / "run" / expected}


def test_names_as_long_as_they_can_be(tmp_path):
    path = saved(tmp_path / ("a" * 250 + ".png"), (20, 10))
    assert draw(tmp_path, [path])[str(path)].is_file()
    assert len({picture_path("x" * 250 + str(index), Path("images"), None).name for index in range(9)}) == 9


def test_a_failure_is_one_warning(tmp_path, caplog):
    good = saved(tmp_path / "good.png", (20, 10))
    assert [*draw(tmp_path / "run", [tmp_path / "gone.png", good, tmp_path / "also gone.png"])] == [str(good)]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "gone.png" in caplog.text


def test_pictures_are_drawn_while_the_next_batch_is_scored(tmp_path, monkeypatch):
    drawn = []
    scored = threading.Event()

    def drawn_later(item, **options):
        assert scored.wait(10)
        drawn.append(item.image_path)
        return draw_picture(item, **options)

    monkeypatch.setattr("anomalib_dpclip.visualization.visualizer.draw_picture", drawn_later)
    first, second = (str(saved(tmp_path / name, (20, 10))) for name in ("a.png", "b.png"))
    trainer = SimpleNamespace(default_root_dir=tmp_path / "run", datamodule=None)
    visualizer = PictureVisualizer()
    visualizer.on_predict_start(trainer, None)
    visualizer.on_predict_batch_end(trainer, None, None, batch([first]), 0)
    assert not drawn  # and the model goes on
    scored.set()
    visualizer.on_predict_batch_end(trainer, None, None, batch([second]), 1)
    assert [*visualizer.pictures] == [first]
    visualizer.on_exception(trainer, None, KeyboardInterrupt())
    assert [*visualizer.pictures] == [second]  # of one batch, however many there are


def test_regions_have_boxes_in_the_picture(tmp_path):
    path = saved(tmp_path / "a.png", (160, 80))
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[0, 2:4, 4:8] = mask[0, 7, 0] = True
    (item,) = batch([path], anomaly_map=torch.full((1, 8, 8), 0.6), pred_mask=mask)
    shown = show(item, 480, is_calibrated=True)
    assert shown.boxes == [
        Region(240, 60, 480, 120, pytest.approx(0.6), 14400),
        Region(0, 210, 60, 240, pytest.approx(0.6), 1800),
    ]
    assert shown.region.sum() == 9 * 1800
    assert (shown.photo.size, shown.shades.shape) == ((480, 240), (240, 480))
    shown = show(item, 480, is_calibrated=True, min_area=201)  # a pixel of the map is 200 of the photo
    assert len(shown.boxes) == 1
    assert shown.region.sum() == 8 * 1800
    heat, plain = (
        np.asarray(draw_picture(each, is_calibrated=True))
        for each in (item, next(iter(batch([path], anomaly_map=torch.full((1, 8, 8), 0.6), pred_mask=None))))
    )
    rows, columns = np.nonzero((heat != plain).any(-1))
    assert rows.max() - rows.min() >= 240 - 61 - 16  # from the upper box's score to the lower edge
    assert columns.min() > heat.shape[1] / 2 - 2  # on the heat map, not on the photo


@pytest.fixture
def photo():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))


def test_colours_are_matplotlib_s_laid_over_the_photo(photo):
    heat = np.random.default_rng(1).random((40, 50), dtype=np.float32)
    colors = mpl.colormaps[COLORS](np.round(heat * 255).astype(int))[..., :3]
    opacity = OPACITY * np.round(heat * 255)[..., None] / 255
    expected = 255 * opacity * colors + (1 - opacity) * np.asarray(photo)
    assert np.abs(np.asarray(heat_map(photo, heat)) - expected).max() <= 1.5


@pytest.mark.parametrize("outline", [1, 3])
def test_outline_is_what_erosion_takes_away(photo, outline):
    region = np.random.default_rng(2).random((40, 50)) < 0.95
    region[:, :20] = True
    edge = region & ~binary_erosion(region, iterations=outline)
    before = photo.tobytes()
    picture = np.asarray(outlined(photo, region, outline))
    assert (picture[edge] == 255).all()
    assert (picture[~edge] == np.asarray(photo)[~edge]).all()
    assert photo.tobytes() == before


@pytest.mark.parametrize("box", [(0, 0, 40, 30), (30, 0, 40, 10), (0, 29, 1, 30), (10, 10, 11, 11), (10, 5, 20, 25)])
def test_boxes_are_drawn_inside(box):
    plain = Image.new("RGB", (40, 30), (200, 0, 200))
    pixels = np.asarray(boxed(plain, [Region(*box, 0.9, 1)])).astype(int)
    left, top, right, bottom = box
    rows, columns = np.nonzero((pixels == 0).all(-1))
    assert (rows.min(), rows.max()) == (max(0, top - 1), min(29, bottom))
    assert (columns.min(), columns.max()) == (max(0, left - 1), min(39, right))
    assert (pixels == 255).all(-1).any() or right - left == 1


def test_captions_are_whole_and_fit():
    text = "lot 4/" + "W" * 120 + "_$5_front.png"
    lines = wrapped(text, 14, 200)
    assert "".join(lines) == text
    assert all(font(14).getlength(line) <= 200 for line in lines)
    short = wrapped(text, 14, 200, 2)
    assert len(short) == 2
    assert "".join(short).startswith("lot 4/W")
    assert "".join(short).endswith("front.png")
    assert wrapped("two words", 14, 60) == ["two ", "words"]
    assert (wrapped("", 14, 200), wrapped("WW", 14, 1)) == ([], ["W", "W"])


def test_other_scripts_are_drawn():
    blank = font(14).getmask("\N{REPLACEMENT CHARACTER}")
    for character in "äßçŁЖλع":
        assert printable(character) == character
        assert bytes(font(14).getmask(character)) != bytes(blank)
    assert printable("a\r\n\t\udcff面.png") == "a?????.png"


def test_the_nearest_picture_s_name():
    photos = torch.rand(5, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    photos[:, :, :20] += torch.arange(5).view(5, 1, 1, 1)  # what is above the middle differs most
    likeness = Likeness([f"folder/{index}.png" for index in range(5)], photos)
    assert likeness.most_like(photos[[3, 0, 4]]) == ["3.png", "0.png", "4.png"]
    noisy = photos + 0.2 * torch.rand(photos.shape, generator=torch.Generator().manual_seed(1))
    assert likeness.most_like(noisy) == [f"{index}.png" for index in range(5)]
    assert likeness.most_like(photos[:1].half()) == ["0.png"]
