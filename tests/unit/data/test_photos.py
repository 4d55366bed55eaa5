import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torchvision.transforms.v2 import Compose, Resize

from anomalib_dpclip.data.photos import Photos, PhotosDataset
from anomalib_dpclip.data.results import RESULTS, RESULTS_JSON
from anomalib_dpclip.data.results.rows import read_parts
from anomalib_dpclip.pre_processing.resize import EightBitResize

RESIZED = (8, 6)


class Brightness(LightningModule):
    def __init__(self, threshold=0.5, num_workers=0):
        super().__init__()
        self.save_hyperparameters()
        self.threshold = threshold
        self.pre_processor = SimpleNamespace(transform=Resize(RESIZED))
        self.batches = []

    def predict_step(self, batch, batch_idx):
        self.batches.append(batch)
        score = batch.image.mean(dim=(1, 2, 3))
        return batch.update(pred_score=score, pred_label=score > self.threshold)


def save(path, grey, size=(20, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (grey, grey, grey)).save(path)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "line 3"
    save(root / "b" / "1.png", 255)
    save(root / "b" / "2.PNG", 51, (5, 9))
    save(root / "a" / "1.png", 204)
    save(root / "0.png", 0)
    return root


SCORES = {"0.png": 0, "a/1.png": 0.8, "b/1.png": 1, "b/2.PNG": 0.2}


def predict(root, folder, model=None, precision="32-true", return_predictions=False, **arguments):
    model = model or Brightness()
    options = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "precision": precision}
    trainer = Trainer(accelerator="cpu", default_root_dir=folder, **options)
    trainer.predict(model, datamodule=Photos(root, num_workers=0, **arguments), return_predictions=return_predictions)
    return model


def results(folder):
    return {row.path: row for row in read_parts(folder)}


def scores(folder, root):
    return {os.path.relpath(row.path, root): float(row.score) if row.score else None for row in read_parts(folder)}


def test_a_row_an_image_in_the_order_of_names(root, tmp_path):
    model = predict(root, tmp_path / "out", batch_size=3)
    assert list(scores(tmp_path / "out", root).items()) == list(SCORES.items())
    rows = list(results(tmp_path / "out").values())
    assert [row.label for row in rows] == ["normal", "anomalous", "anomalous", "normal"]
    assert {row.status for row in rows} == {"ok"}
    # Images of two sizes, brought to one before they are a batch.
    assert [tuple(batch.image.shape) for batch in model.batches] == [(3, 3, *RESIZED), (1, 3, *RESIZED)]


def test_masks_hidden_files_and_own_output_are_no_photos(root):
    for name in ("masks/1.png", "b/Ground_Truth/1.png", ".cache/1.png", "b/.1.png", "out/images/1.png"):
        save(root / name, 9)
    (root / "notes.txt").write_text("no image")
    predict(root, root / "out")
    assert scores(root / "out", root) == SCORES


def test_bad_files_are_reported_and_the_others_done(root, tmp_path, caplog):
    whole = (root / "b" / "1.png").read_bytes()
    (root / "b" / "1.png").write_bytes(whole[: len(whole) // 2])
    for name in ("0.png", "a/1.png"):  # a batch of nothing else
        (root / name).write_bytes(b"")
    predict(root, tmp_path / "out", batch_size=2)
    assert scores(tmp_path / "out", root) == dict.fromkeys(SCORES) | {"b/2.PNG": 0.2}
    bad = str(root / "b" / "1.png")
    assert bad in caplog.text
    assert bad in results(tmp_path / "out")[bad].status


def test_names_twice_links_and_other_scripts_are_photos_of_their_own(root, tmp_path):
    (root / "b" / "link.png").symlink_to(root / "a" / "1.png")
    (root / "b" / "gone.png").symlink_to(root / "nothing.png")
    (root / "elsewhere").symlink_to(tmp_path)  # a folder, which might lead round in circles
    save(root / "größer 螺丝.png", 102)
    predict(root, tmp_path / "out")
    more = {"b/link.png": 0.8, "b/gone.png": None, "größer 螺丝.png": 0.4}
    assert scores(tmp_path / "out", root) == SCORES | more
    (tmp_path / "alone.png").symlink_to(root / "0.png")
    predict(tmp_path, tmp_path / "one", only=[tmp_path / "alone.png"])
    assert scores(tmp_path / "one", tmp_path) == {"alone.png": 0}


def test_why_a_photo_cannot_be_read_is_told_by_the_reader_that_could_not(tmp_path):
    Image.fromarray(np.full((8, 8), 4095, np.uint16)).save(tmp_path / "a.png")
    predict(tmp_path, tmp_path / "out", bit_depth=10)
    assert "must lie in 0..1023" in results(tmp_path / "out")[str(tmp_path / "a.png")].status


def test_a_csv_of_something_else_is_left_alone(root, tmp_path):
    (tmp_path / RESULTS).write_text("epoch,loss\n1,0.5\n")
    with pytest.raises(ValueError, match="has columns epoch, loss, not those of results: move it away"):
        predict(root, tmp_path)
    assert (tmp_path / RESULTS).read_text() == "epoch,loss\n1,0.5\n"


def test_classes_of_folders(root, tmp_path):
    save(root / "metal_nut" / "deep" / "1.png", 100)
    model = predict(root, tmp_path / "out", class_from_folder=True)
    assert [name for batch in model.batches for name in batch.class_name] == ["object", "a", "b", "b", "metal nut"]
    assert predict(root, tmp_path / "other").batches[0].class_name is None


def test_memory_is_pointed_out(root, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("anomalib_dpclip.data.photos.MANY", 3)
    predict(root, tmp_path / "out", return_predictions=True)
    assert "--return_predictions false" in caplog.text


def test_formats_of_phones_and_cameras_are_named(root, tmp_path, caplog):
    for name in ("IMG_0001.HEIC", "b.dng"):
        (root / name).write_bytes(b"x")
    predict(root, tmp_path / "out")
    (line,) = [message for message in caplog.messages if "left out" in message]
    assert line.startswith("2 photos left out, such as ")
    assert ".dng, .heic cannot be read" in line


def test_bad_arguments(tmp_path, root):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        Photos(tmp_path / "nowhere").predict_dataloader()
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no images in .*empty"):
        Photos(tmp_path / "empty").predict_dataloader()
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        Photos(root, batch_size=0)
    with pytest.raises(ValueError, match="num_workers must be at least 0"):
        Photos(root, num_workers=-1)
    for stage in ("fit", "test"):
        with pytest.raises(ValueError, match="Photos have no labels"):
            Photos(root).setup(stage)


def test_fewer_photos_than_devices(root, tmp_path):
    photos = Photos(root)
    options = {"world_size": 5, "default_root_dir": tmp_path, "precision": "32-true"}
    photos.trainer = SimpleNamespace(lightning_module=Brightness(), **options)
    with pytest.raises(ValueError, match=r"4 left for 5 devices: set --trainer\.devices 4"):
        photos.predict_dataloader()


# Forked processes share the imports, which take longer than the test.
TWO_PROCESSES = """
import sys
from lightning.pytorch import Trainer

from anomalib_dpclip.data.photos import Photos
from tests.unit.data.test_photos import Brightness
root, folder = sys.argv[1:]
trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp_fork", logger=False, enable_progress_bar=False,
                  enable_checkpointing=False, default_root_dir=folder)
trainer.predict(Brightness(), datamodule=Photos(root, batch_size=2, num_workers=0), return_predictions=False)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked on this system")
def test_two_processes_predict_every_image_once(root, tmp_path):
    for index in range(5):
        save(root / "c" / f"{index}.png", 10 * index)
    (root / "c" / "bad.png").write_bytes(b"")
    predict(root, tmp_path / "one")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", TWO_PROCESSES, str(root), str(tmp_path / "two")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert list(scores(tmp_path / "two", root).items()) == sorted(scores(tmp_path / "one", root).items())
    assert {path.name for path in (tmp_path / "two").iterdir()} == {RESULTS, RESULTS_JSON}


@pytest.mark.parametrize(("reduced", "sizes"), [(False, {(96, 64), (64, 64)}), (True, {(24, 16), (16, 16)})])
def test_large_jpegs_are_decoded_in_part_if_the_user_says_so(tmp_path, monkeypatch, reduced, sizes):
    """A quarter of 96 x 64 is the last size not below twice the model's, 8 x 6."""
    for size in ((96, 64), (64, 64)):
        save(tmp_path / f"{size[0]}.jpg", 200, size)
    seen = set()
    monkeypatch.setattr(
        "anomalib_dpclip.data.readers.to_rgb", lambda image, *_: (seen.add(image.size), image.convert("RGB"))[1]
    )
    predict(tmp_path, tmp_path / "out", reduced_jpeg=reduced)
    assert seen == sizes
    assert {row.score for row in results(tmp_path / "out").values()} == {"0.784314"}


@pytest.mark.parametrize("size", [(20, 24), (37, 51)])
def test_resized_in_eight_bits_or_after_makes_no_difference(tmp_path, size):
    values = torch.randint(0, 256, (37, 51, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    Image.fromarray(values.numpy()).save(tmp_path / "a.png")
    path, resize = str(tmp_path / "a.png"), EightBitResize(size)
    early, late = (PhotosDataset([path], resize=each)[0].image for each in (resize, Compose([resize])))
    assert early.dtype == late.dtype == torch.float32
    assert torch.equal(early, late)
