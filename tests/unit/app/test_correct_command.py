"""`dpclip correct`: another checkpoint, which judges by the corrections, and a list of what changed."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from tests.data.golden.make_golden import GOLDEN

from anomalib_dpclip.app.correct_command import write_corrected
from anomalib_dpclip.app.page import Answers, _model, remembers_photos
from anomalib_dpclip.app.predictor import Predictor
from anomalib_dpclip.cli import main
from anomalib_dpclip.model.from_file import model_from_file

CHECKPOINT = GOLDEN / "checkpoint-v1.ckpt"


def photo(path, seed, spot=None):
    """Soft noise, and where it is asked for a spot of two colours."""
    noise = np.random.default_rng(seed).integers(90, 110, (14, 14, 3), np.uint8)
    image = Image.fromarray(noise).resize((140, 140), Image.Resampling.BILINEAR)
    if spot is not None:
        ImageDraw.Draw(image).rectangle((*spot, spot[0] + 40, spot[1] + 30), "white", "black", 6)
    image.save(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint with a memory of plain photos; photos with a spot in one place, and one with it elsewhere."""
    folder = tmp_path_factory.mktemp("corrections")
    model = model_from_file(CHECKPOINT, visualizer=False)
    model.set_references([photo(folder / f"plain{seed}.png", seed) for seed in range(6)])
    write_corrected(model, CHECKPOINT, folder / "model.ckpt")
    for seed in range(6, 12):
        photo(folder / f"spot{seed}.png", seed, (30, 60))
    photo(folder / "elsewhere.png", 13, (90, 10))
    return folder


def test_what_comes_again_is_called_normal_and_what_is_elsewhere_stays(folder, capsys):
    known = folder / "known"
    known.mkdir()
    for name in ("spot10.png", "spot11.png", "elsewhere.png", "plain0.png"):
        (folder / name).rename(known / name)
    fine = [str(folder / f"spot{seed}.png") for seed in range(6, 10)]
    before = (folder / "model.ckpt").read_bytes()
    main(["correct", "--ckpt_path", str(folder / "model.ckpt"), "--known", f"[{known}]", *fine])
    *lines, count, written = capsys.readouterr().out.splitlines()
    assert (folder / "model.ckpt").read_bytes() == before
    assert written == f"Written: {folder / 'model-corrected.ckpt'}"
    said = {line.split()[-1].rsplit("/", 1)[1]: line.rsplit("  ", 2)[1].strip() for line in lines}
    changed = "anomalous -> normal"
    assert said == {f"spot{seed}.png": changed for seed in range(6, 12)} | {
        "elsewhere.png": "anomalous",
        "plain0.png": "normal",
    }
    assert count == "6 of 8 decisions have changed"
    corrected = model_from_file(folder / "model-corrected.ckpt")
    assert int(corrected.model.memory.photos) == 10
    assert int(corrected.model.corrections.photos) == 4
    with pytest.raises(SystemExit, match=r"model-corrected\.ckpt is there already"):
        main(["correct", "--ckpt_path", str(folder / "model.ckpt"), *fine])


def test_a_corrected_checkpoint_is_corrected_again(folder, tmp_path):
    model = model_from_file(folder / "model.ckpt")
    model.add_corrections([photo(tmp_path / "a.png", 20, (30, 60))])
    write_corrected(model, folder / "model.ckpt", tmp_path / "once.ckpt")
    again = model_from_file(tmp_path / "once.ckpt")
    first = again.model.corrections.seen.sum()
    again.add_corrections([photo(tmp_path / "b.png", 21, (90, 10))])
    assert again.model.corrections.seen.sum() > first
    assert int(again.model.memory.photos) == 8
    again.set_references([tmp_path / "a.png"])  # another memory, which has not been corrected
    assert again.model.corrections is None


def test_photos_that_were_not_called_anomalous_only_join_the_memory(folder, tmp_path):
    model = model_from_file(folder / "model.ckpt")
    model.add_corrections([photo(tmp_path / "plain.png", 3)])
    assert model.model.corrections is None
    assert int(model.model.memory.photos) == 7


@pytest.mark.parametrize(
    ("checkpoint", "fine", "message"),
    [
        (CHECKPOINT, "fine.png", "has no memory of photos of its target that corrections could be added to: calibrate with"),
        (GOLDEN / "adapters-v1.safetensors", "fine.png", "has no memory of photos of its target"),
        ("model.ckpt", "none.png", r"cannot read image .*none\.png"),
        ("model.ckpt", "gone.png", r"no such image file: .*gone\.png"),
        ("gone.ckpt", "fine.png", r"there is no adapter file .*gone\.ckpt"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(folder, tmp_path, checkpoint, fine, message):
    photo(tmp_path / "fine.png", 1)
    (tmp_path / "none.png").write_bytes(b"none")
    with pytest.raises(SystemExit, match=message):
        main(["correct", "--ckpt_path", str(folder / checkpoint), "--to", str(tmp_path / "new.ckpt"), str(tmp_path / fine)])
    assert not (tmp_path / "new.ckpt").exists()


def test_exported_and_predicted_maps_leave_out_what_is_explained(folder, tmp_path):
    model = model_from_file(folder / "model.ckpt").eval()
    path = photo(tmp_path / "a.png", 30, (30, 60))
    image = torch.from_numpy(np.asarray(Image.open(path), np.float32)).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        before = model(image)
        model.add_corrections([path])
        after = model(image)
    assert before.pred_mask[..., 60:90, 30:70].any()
    assert not after.pred_mask.any()
    assert after.pred_score < before.pred_score


def test_the_button_of_the_page(folder, tmp_path):
    (tmp_path / "model.ckpt").write_bytes((folder / "model.ckpt").read_bytes())
    assert remembers_photos(str(tmp_path / "model.ckpt"))
    assert not remembers_photos(str(CHECKPOINT))
    assert not remembers_photos("clip")
    model = _model(str(tmp_path / "model.ckpt"), {"domain": "industrial", "min_area": 0})
    answers = Answers(Predictor(model.eval()), tmp_path / "model.ckpt")
    path = str(photo(tmp_path / "a.png", 40, (30, 60)))
    assert answers.look(path, "weave", 0.5)[3].startswith("## Anomalous")
    *_, verdict = answers.correct(path, "weave", 0.5)
    assert verdict.startswith("## Normal")
    assert verdict.endswith("Corrected. Kept in model-corrected.ckpt, beside the checkpoint.")
    assert model_from_file(tmp_path / "model-corrected.ckpt").model.corrections is not None
    (tmp_path / "none.png").write_bytes(b"none")
    assert answers.correct(str(tmp_path / "none.png"), "weave", 0.5)[3].startswith(
        "### Not corrected\ncannot read image none.png"
    )
