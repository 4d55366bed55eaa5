"""`dpclip predict`: a line a photo, by a model of its file alone; `dpclip correct`: another checkpoint, and what changed."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.golden.make_golden import GOLDEN
from tests.spotted import soft_photo

from anomalib_dpclip import __version__
from anomalib_dpclip.app.answers import Answers
from anomalib_dpclip.app.app_command import page_model
from anomalib_dpclip.app.correct_command import write_corrected
from anomalib_dpclip.app.predictor import Predictor
from anomalib_dpclip.cli import main
from anomalib_dpclip.data.results import CONTACT_SHEET, RESULTS, RESULTS_JSON
from anomalib_dpclip.model.from_file import model_from_file
from anomalib_dpclip.post_processing.score_text import Standing

ADAPTERS, CHECKPOINT = (GOLDEN / name for name in ("adapters-v1.safetensors", "checkpoint-v1.ckpt"))


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(3):
        Image.new("RGB", (160, 120), (60 * index, 90, 120)).save(folder / f"{index}.png")
    return folder


def predict(weights, output, *arguments):
    main(["predict", "--weights", str(weights), "--output", str(output), "--num_workers", "0", *map(str, arguments)])


@pytest.mark.parametrize("file", [ADAPTERS, CHECKPOINT])
def test_a_folder_and_a_photo_by_a_model_of_its_file_alone(tmp_path, photos, capsys, file):
    model = model_from_file(file)
    assert model.provenance.backbone == "mini"
    assert (model.model.adapter_layers, model.model.tap_layers) == ((0,), (3, 6))
    assert model.target.anchor_class == "weave"
    assert model.post_processor.calibration.is_set
    assert model_from_file(file, class_name="brick").target.anchor_class == "brick"

    is_calibrated = file == CHECKPOINT
    alone, out = tmp_path / "alone.png", tmp_path / "out"
    Image.new("RGB", (50, 200)).save(alone)
    predict(file, out, photos, alone)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    for line, path in zip(lines, [alone, *sorted(photos.iterdir())], strict=False):
        score, label, *rest = line.split()
        assert 0 <= float(score) <= 1
        assert label in ({"normal", "anomalous"} if is_calibrated else {"uncalibrated"})
        picture = out / "images" / f"{path.relative_to(tmp_path)}.jpg"
        assert rest == [str(path), str(picture)]
        assert picture.is_file()
    assert lines[-2].startswith("4 photos, ")
    assert lines[-2].endswith(", 0 could not be read")
    assert lines[-1].startswith("Thresholds: " if is_calibrated else "Uncalibrated: ")
    assert {RESULTS, RESULTS_JSON, CONTACT_SHEET} <= {path.name for path in out.iterdir()}
    predict(file, out, photos, alone)  # nothing left to do, and still an answer
    again = capsys.readouterr()
    assert again.out.splitlines() == [*lines[:-1], f"Nothing to do: all 4 photos have results in {out}."]
    assert again.err == ""
    Image.new("RGB", (160, 120)).save(photos / "more.png")
    predict(file, out, photos, alone)
    assert capsys.readouterr().out.splitlines()[-1] == lines[-1]


def test_what_exceeds_the_threshold_is_listed_in_pixels_of_the_photo(tmp_path, photos):
    with Image.open(photos / "0.png") as photo:
        defective = photo.copy()
    defective.paste((255, 0, 255), (100, 20, 150, 60))
    defective.save(photos / "0.png")
    predict(CHECKPOINT, tmp_path / "all", photos, "--pictures", "false")
    predict(CHECKPOINT, tmp_path / "large", photos, "--pictures", "false", "--min_area", "19200")
    everything, large = (json.loads((tmp_path / name / RESULTS_JSON).read_text()) for name in ("all", "large"))
    assert [row["score"] for row in everything] == [row["score"] for row in large]
    regions = [region for row in everything for region in row["regions"]]
    assert regions
    for region in regions:
        left, top, right, bottom = region["box"]
        assert 0 <= left < right <= 160
        assert 0 <= top < bottom <= 120
        assert 0.5 < region["score"] <= 1
        assert 0 < region["area"] <= (right - left) * (bottom - top) + 200  # less than a row of pixels of the map is rounded
    assert all(region["area"] == 19200 for row in large for region in row["regions"])


def test_each_photo_is_told_how_many_good_photos_score_lower(tmp_path, photos, capsys):
    new, out = tmp_path / "new.png", tmp_path / "out"
    Image.new("RGB", (160, 120), (255, 0, 255)).save(new)
    predict(ADAPTERS, out, "--good", photos, new)
    line, *_ = capsys.readouterr().out.splitlines()
    (row,) = json.loads((out / RESULTS_JSON).read_text())
    assert (row["good_photos"], row["most_like"]) == (3, "2.png"), "the lightest of them"
    assert line.endswith(f"  {Standing(round(3 * row['good_below']), 3)}, most like 2.png")


def test_a_photo_that_cannot_be_read_is_the_exit_status(tmp_path, photos, capsys):
    (photos / "bad.png").write_bytes(b"")
    with pytest.raises(SystemExit) as stopped:
        predict(ADAPTERS, tmp_path / "out", photos)
    assert stopped.value.code == 1
    assert capsys.readouterr().out.splitlines()[-2].endswith(f"1 could not be read: {photos / 'bad.png'}")


@pytest.mark.parametrize(
    ("good", "message"),
    [
        ("photos", "Choose other photos with --good, or other ones to score"),
        ("empty", "no images in .*empty: --good must be the folder of the good photos"),
    ],
)
def test_good_photos_that_do_not_serve_are_named(tmp_path, photos, good, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match=message):
        predict(ADAPTERS, tmp_path / "out", "--good", tmp_path / good, photos)


def test_the_version(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"dpclip {__version__}\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint with a memory of six plain photos; photos with a spot, and one with another defect elsewhere."""
    folder = tmp_path_factory.mktemp("corrections")
    model = model_from_file(CHECKPOINT, visualizer=False)
    model.set_references([soft_photo(folder / f"plain{seed}.png", seed) for seed in range(6)])
    write_corrected(model, CHECKPOINT, folder / "model.ckpt")
    for seed in range(6, 12):
        soft_photo(folder / f"spot{seed}.png", seed, (30, 60))
    soft_photo(folder / "elsewhere.png", 13)
    photo = Image.open(folder / "elsewhere.png")
    photo.paste((0, 200, 0), (90, 10, 130, 40))
    photo.save(folder / "elsewhere.png")
    return folder


def correct(checkpoint, *arguments):
    main(["correct", "--ckpt_path", str(checkpoint), *map(str, arguments)])


def photos_in(checkpoint):
    return int(model_from_file(checkpoint).scorer.state.memory.photos)


def test_what_comes_again_is_called_normal_and_what_is_elsewhere_stays(folder, capsys):
    known = folder / "known"
    known.mkdir()
    for name in ("spot10.png", "spot11.png", "elsewhere.png", "plain0.png"):
        (folder / name).rename(known / name)
    fine = [folder / f"spot{seed}.png" for seed in range(6, 10)]
    before = (folder / "model.ckpt").read_bytes()
    correct(folder / "model.ckpt", "--known", known, *fine)
    *lines, count, written = capsys.readouterr().out.splitlines()
    assert (folder / "model.ckpt").read_bytes() == before
    assert written == f"Written: {folder / 'model-corrected.ckpt'}"
    said = {line.split()[-1].rsplit("/", 1)[1]: line.rsplit("  ", 2)[1].strip() for line in lines}
    same = {"elsewhere.png": "anomalous", "plain0.png": "normal"}
    assert said == {f"spot{seed}.png": "anomalous -> normal" for seed in range(6, 12)} | same
    assert count == "6 of 8 decisions have changed"
    assert photos_in(folder / "model-corrected.ckpt") == 10
    correct(folder / "model.ckpt", known / "spot10.png")  # joins the others
    assert photos_in(folder / "model-corrected.ckpt") == 11
    with pytest.raises(SystemExit, match=r"model\.ckpt is there already"):
        correct(folder / "model.ckpt", "--to", folder / "model.ckpt", *fine)


def test_known_photos_in_several_places(folder, tmp_path, capsys):
    fine = soft_photo(tmp_path / "fine.png", 50, (30, 60))
    known = [soft_photo(tmp_path / name, seed) for name, seed in (("a/x.png", 51), ("b/y.png", 52))]
    correct(folder / "model.ckpt", "--to", tmp_path / "new.ckpt", "--known", f"[{known[0].parent},{known[1]}]", fine)
    assert "1 of 3 decisions have changed" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no folder or photo gone: --known looks at it before and after"):
        correct(folder / "model.ckpt", "--to", tmp_path / "newer.ckpt", "--known", "gone", fine)
    assert not (tmp_path / "newer.ckpt").exists()


@pytest.mark.parametrize(
    ("checkpoint", "fine", "message"),
    [
        (CHECKPOINT, "fine.png", "keeps no good photos of its target that others could join: calibrate with"),
        (ADAPTERS, "fine.png", "keeps no good photos of its target"),
        ("model.ckpt", "none.png", r"cannot read image .*none\.png"),
        ("model.ckpt", "gone.png", r"no such image file: .*gone\.png"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(folder, tmp_path, checkpoint, fine, message):
    soft_photo(tmp_path / "fine.png", 1)
    (tmp_path / "none.png").write_bytes(b"none")
    with pytest.raises(SystemExit, match=message):
        correct(folder / checkpoint, "--to", tmp_path / "new.ckpt", tmp_path / fine)
    assert not (tmp_path / "new.ckpt").exists()


@pytest.fixture
def answers(folder, tmp_path):
    (tmp_path / "model.ckpt").write_bytes((folder / "model.ckpt").read_bytes())
    model = page_model(str(tmp_path / "model.ckpt"), domain="industrial")
    return Answers(Predictor(model), tmp_path / "model.ckpt")


def test_the_button_writes_what_the_command_writes(answers, tmp_path):
    path = str(soft_photo(tmp_path / "a.png", 40, (30, 60)))
    before = answers.look([path], "weave", None, 0.5).verdict
    assert before.startswith("## Anomalous")
    assert "**6 good photos** kept in the checkpoint." in before
    answers.look([path], "brick", [str(soft_photo(tmp_path / "b.png", 41))], 0.5)  # leaves nothing behind
    after = answers.correct([path], "weave", None, 0.5).verdict
    assert after.startswith("## Normal")
    assert "**7 good photos** kept in the checkpoint." in after
    assert "**Corrected**, and kept in model-corrected.ckpt beside the checkpoint." in after
    correct(tmp_path / "model.ckpt", "--to", tmp_path / "other.ckpt", path)
    names = ("model-corrected.ckpt", "other.ckpt")
    own, other = (dict(torch.load(tmp_path / name, weights_only=True)["state_dict"]) for name in names)
    torch.testing.assert_close(own, other, rtol=0, atol=0, equal_nan=True)  # anomalib's own thresholds are unset
    more = str(soft_photo(tmp_path / "c.png", 41, (90, 10)))
    assert "**Corrected**" in answers.correct([more], "weave", None, 0.5).verdict
    assert photos_in(tmp_path / "model-corrected.ckpt") == 8


def test_what_cannot_be_corrected_is_said_and_changes_nothing(answers, tmp_path, monkeypatch):
    path, good = (str(soft_photo(tmp_path / name, seed, (30, 60))) for name, seed in (("a.png", 40), ("b.png", 41)))
    (tmp_path / "none.png").write_bytes(b"none")
    before = answers.look([path], "weave", None, 0.5)

    def refused(path, good=None):
        verdict = answers.correct(path and [str(path)], "weave", good, 0.5).verdict
        assert not (tmp_path / "model-corrected.ckpt").exists()
        again = answers.look([str(tmp_path / "a.png")], "weave", None, 0.5)
        assert np.array_equal(*(each.judged[0].prediction.anomaly_map for each in (again, before)))
        return verdict

    assert refused(None).startswith("Drop a photo, or several, to begin.")
    assert "**Not corrected:** cannot read image none.png" in refused(tmp_path / "none.png")
    assert "**Not corrected:** gone.png: photos are deleted" in refused(tmp_path / "gone.png")
    several = answers.correct([path, good], "weave", None, 0.5).verdict
    assert "**Not corrected:** take all photos off but the one that is fine" in several
    assert "**Not corrected:** corrections join the good photos that are kept in model.ckpt." in refused(path, [good])
    with monkeypatch.context() as full:

        def fail(*_):
            raise OSError("no space left")

        full.setattr("anomalib_dpclip.app.answers.write_corrected", fail)
        assert refused(path).endswith("**Not corrected:** no space left")

    (tmp_path / "model-corrected.ckpt").write_bytes(b"of yesterday")
    verdict = answers.correct([path], "weave", None, 0.5).verdict
    assert "**Not corrected:** model-corrected.ckpt is there already, of an earlier time." in verdict
    assert (tmp_path / "model-corrected.ckpt").read_bytes() == b"of yesterday"
    (tmp_path / "model-corrected.ckpt").unlink()
    assert "**Corrected**" in answers.correct([path], "weave", None, 0.5).verdict
    twice = answers.correct([path], "weave", None, 0.5).verdict
    assert twice.endswith("**Not corrected:** a.png has been taken for fine before")
