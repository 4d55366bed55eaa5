import csv
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from tests.arguments import make_dpclip
from torchvision.transforms.v2 import Resize

from anomalib_dpclip.data.photos import Photos, PhotosDataset
from anomalib_dpclip.data.results import RESULTS, RESULTS_JSON
from anomalib_dpclip.data.results.rows import read_parts


def read_results(folder):
    return {row.path: row for row in read_parts(folder)}


RESIZED = (8, 6)


class Brightness(LightningModule):
    """Scores images by their mean."""

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


def save(path: Path, grey: int, size=(20, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (grey, grey, grey)).save(path)
    return path


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "line 3"
    save(root / "b" / "1.png", 255)
    save(root / "b" / "2.PNG", 51, (5, 9))
    save(root / "a" / "1.png", 204)
    save(root / "0.png", 0)
    return root


def predict(root, folder, model=None, precision="32-true", **arguments):
    model = model or Brightness()
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        precision=precision,
    )
    trainer.predict(model, datamodule=Photos(root, num_workers=0, **arguments), return_predictions=False)
    return model


def rows(folder, root=None):
    """Path below the root (or whole), score, label, status of each row."""
    with (folder / RESULTS).open(encoding="utf-8", newline="") as stream:
        found = list(csv.DictReader(stream))
    return [
        (os.path.relpath(row["path"], root) if root else row["path"], row["score"], row["label"], row["status"])
        for row in found
    ]


def test_a_row_an_image_in_the_order_of_names(root, tmp_path):
    model = predict(root, tmp_path / "out", batch_size=3)
    assert rows(tmp_path / "out", root) == [
        ("0.png", "0.000000", "normal", "ok"),
        ("a/1.png", "0.800000", "anomalous", "ok"),
        ("b/1.png", "1.000000", "anomalous", "ok"),
        ("b/2.PNG", "0.200000", "normal", "ok"),
    ]
    # Images of two sizes, brought to one before they are a batch.
    assert [tuple(batch.image.shape) for batch in model.batches] == [(3, 3, *RESIZED), (1, 3, *RESIZED)]


def test_masks_hidden_files_and_own_output_are_no_photos(root, tmp_path):
    out = root / "out"
    for name in ("masks/1.png", "b/Ground_Truth/1.png", ".cache/1.png", "b/.1.png", "out/images/1.png"):
        save(root / name, 9)
    (root / "notes.txt").write_text("no image")
    predict(root, out)
    assert [path for path, *_ in rows(out, root)] == ["0.png", "a/1.png", "b/1.png", "b/2.PNG"]


def test_a_bad_file_is_reported_and_the_others_done(root, tmp_path, caplog):
    whole = (root / "b" / "1.png").read_bytes()
    (root / "b" / "1.png").write_bytes(whole[: len(whole) // 2])
    predict(root, tmp_path / "out", batch_size=4)
    found = {path: (score, label, status) for path, score, label, status in rows(tmp_path / "out", root)}
    assert found.pop("b/1.png")[:2] == ("", "")
    assert {status for *_, status in found.values()} == {"ok"}
    bad = str(root / "b" / "1.png")
    assert bad in caplog.text
    assert bad in next(row.status for row in read_results(tmp_path / "out").values() if row.path == bad)


def test_names_twice_links_and_other_scripts_are_photos_of_their_own(root, tmp_path):
    """Nothing is overwritten or left out, and what cannot be read does not end the run."""
    (root / "b" / "link.png").symlink_to(root / "a" / "1.png")
    (root / "b" / "gone.png").symlink_to(root / "nothing.png")
    (root / "elsewhere").symlink_to(tmp_path)  # a folder, which might lead round in circles
    save(root / "größer 螺丝.png", 102)
    (root / "empty.png").touch()
    predict(root, tmp_path / "out")
    found = {path: (score, status) for path, score, _, status in rows(tmp_path / "out", root)}
    assert {path: float(score) for path, (score, status) in found.items() if status == "ok"} == {
        "0.png": 0, "a/1.png": 0.8, "b/1.png": 1, "b/2.PNG": 0.2, "b/link.png": 0.8, "größer 螺丝.png": 0.4
    }  # fmt: skip
    assert set(found) - {path for path, (_, status) in found.items() if status == "ok"} == {"b/gone.png", "empty.png"}
    (tmp_path / "alone.png").symlink_to(root / "0.png")
    predict(tmp_path, tmp_path / "one", only=[tmp_path / "alone.png"])
    assert [path for path, *_ in rows(tmp_path / "one", tmp_path)] == ["alone.png"]


def test_why_a_photo_cannot_be_read_is_told_by_the_reader_that_could_not(tmp_path):
    Image.fromarray(np.full((8, 8), 4095, np.uint16)).save(tmp_path / "a.png")
    predict(tmp_path, tmp_path / "out", bit_depth=10)
    assert "must lie in 0..1023" in rows(tmp_path / "out")[0][3]


def test_a_batch_of_bad_files_only(root, tmp_path):
    for name in ("0.png", "a/1.png"):
        (root / name).write_bytes(b"")
    predict(root, tmp_path / "out", batch_size=2)
    assert [(path, score) for path, score, *_ in rows(tmp_path / "out", root)] == [
        ("0.png", ""),
        ("a/1.png", ""),
        ("b/1.png", "1.000000"),
        ("b/2.PNG", "0.200000"),
    ]


def test_a_csv_of_something_else_is_left_alone(root, tmp_path):
    (tmp_path / RESULTS).write_text("epoch,loss\n1,0.5\n")
    with pytest.raises(ValueError, match="has columns epoch, loss, not those of results: move it away"):
        predict(root, tmp_path)
    assert (tmp_path / RESULTS).read_text() == "epoch,loss\n1,0.5\n"


def test_names_with_commas_and_bytes_that_are_no_text(root, tmp_path):
    odd = os.fsdecode(b'comma, "quote" \xff.png')
    try:
        (root / "0.png").rename(root / odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    predict(root, tmp_path / "out")
    assert str(root / odd) in read_results(tmp_path / "out")
    assert not predict(root, tmp_path / "out").batches


def test_classes_of_folders(root, tmp_path):
    save(root / "metal_nut" / "deep" / "1.png", 100)
    model = predict(root, tmp_path / "out", class_from_folder=True)
    assert [name for batch in model.batches for name in batch.class_name] == ["object", "a", "b", "b", "metal nut"]
    assert predict(root, tmp_path / "other").batches[0].class_name is None


def test_memory_is_pointed_out(root, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("anomalib_dpclip.data.photos.MANY", 3)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path / "out")
    trainer.predict(Brightness(), datamodule=Photos(root, num_workers=0), return_predictions=True)
    assert "--return_predictions false" in caplog.text


def test_without_a_trainer_it_is_a_loader_of_all_images(root):
    paths = [path for batch in Photos(root, batch_size=1, num_workers=0).predict_dataloader() for path in batch.image_path]
    assert [os.path.relpath(path, root) for path in paths] == ["0.png", "a/1.png", "b/1.png", "b/2.PNG"]


@pytest.mark.parametrize("stage", ["fit", "test"])
def test_refuses_to_train_and_test(root, stage):
    with pytest.raises(ValueError, match="Photos have no labels"):
        Photos(root).setup(stage)


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


def test_fewer_photos_than_devices(root, tmp_path):
    photos = Photos(root)
    model = Brightness()
    photos.trainer = SimpleNamespace(world_size=5, lightning_module=model, default_root_dir=tmp_path, precision="32-true")
    with pytest.raises(ValueError, match=r"4 left for 5 devices: set --trainer\.devices 4"):
        photos.predict_dataloader()


def test_with_the_model_itself(root, tmp_path):
    for name in ("0.png", "a/1.png"):
        (root / name).write_bytes(b"")
    predict(root, tmp_path, make_dpclip(backbone="mini", weights="clip", class_name="brick", visualizer=False), batch_size=2)
    found = rows(tmp_path, root)
    assert [status == "ok" for *_, status in found] == [False, False, True, True]
    assert all(0 <= float(score) <= 1 and label == "uncalibrated" for _, score, label, _ in found[2:])


# Forked processes share the imports, which take longer than the test.
TWO_PROCESSES = """
import sys
from lightning.pytorch import Trainer

from anomalib_dpclip.data.photos import Photos, PhotosDataset
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
    assert rows(tmp_path / "two", root) == sorted(rows(tmp_path / "one", root))
    assert {path.name for path in (tmp_path / "two").iterdir()} == {RESULTS, RESULTS_JSON}


@pytest.mark.parametrize(("reduced", "sizes"), [(False, {(96, 64), (64, 64)}), (True, {(24, 16), (16, 16)})])
def test_large_jpegs_are_decoded_in_part_if_the_user_says_so(tmp_path, monkeypatch, reduced, sizes):
    """A quarter of 96 x 64 is the last size not below twice the model's, 8 x 6; PNGs cannot be decoded in part."""
    for size in ((96, 64), (64, 64)):
        Image.new("RGB", size, (200, 200, 200)).save(tmp_path / f"{size[0]}.jpg")
    seen = set()
    monkeypatch.setattr(
        "anomalib_dpclip.data.readers.to_rgb", lambda image, *_: (seen.add(image.size), image.convert("RGB"))[1]
    )
    model = Brightness()
    predict(tmp_path, tmp_path / "out", model, reduced_jpeg=reduced)
    assert seen == sizes
    assert {row.score for row in read_results(tmp_path / "out").values()} == {"0.784314"}


def test_results_of_reduced_photos_are_results_of_their_own(root, tmp_path):
    predict(root, tmp_path)
    before = {row.model for row in read_results(tmp_path).values()}
    predict(root, tmp_path, reduced_jpeg=True)
    assert before.isdisjoint({row.model for row in read_results(tmp_path).values()})


@pytest.mark.parametrize("size", [(20, 24), (37, 51)])
def test_resized_in_eight_bits_or_after_makes_no_difference(tmp_path, size):
    from torchvision.transforms.v2 import Compose

    from anomalib_dpclip.pre_processing.resize import EightBitResize

    values = torch.randint(0, 256, (37, 51, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    Image.fromarray(values.numpy()).save(tmp_path / "a.png")
    path, resize = str(tmp_path / "a.png"), EightBitResize(size)
    early, late = (PhotosDataset([path], resize=each)[0].image for each in (resize, Compose([resize])))
    assert early.dtype == late.dtype == torch.float32
    assert torch.equal(early, late)
