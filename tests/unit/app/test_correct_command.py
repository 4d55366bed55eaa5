import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.golden.make_golden import GOLDEN
from tests.spotted import soft_photo

from anomalib_dpclip.app.answers import Answers
from anomalib_dpclip.app.app_command import page_model
from anomalib_dpclip.app.correct_command import write_corrected
from anomalib_dpclip.app.predictor import Predictor
from anomalib_dpclip.cli import main
from anomalib_dpclip.model.from_file import model_from_file

CHECKPOINT = GOLDEN / "checkpoint-v1.ckpt"


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
        (GOLDEN / "adapters-v1.safetensors", "fine.png", "keeps no good photos of its target"),
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
