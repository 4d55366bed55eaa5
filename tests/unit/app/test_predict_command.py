"""`dpclip predict`: everything about the model from its file, a line a photo, a summary, and the exit status."""

import pytest
from PIL import Image
from tests.data.golden.make_golden import GOLDEN

from anomalib_dpclip import __version__
from anomalib_dpclip.cli import main
from anomalib_dpclip.data.results import CONTACT_SHEET, RESULTS
from anomalib_dpclip.model.from_file import model_from_file


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(3):
        Image.new("RGB", (160, 120), (60 * index, 90, 120)).save(folder / f"{index}.png")
    return folder


FILES = ["adapters-v1.safetensors", "checkpoint-v1.ckpt"]


@pytest.mark.parametrize("name", FILES)
def test_a_model_from_its_file(name):
    model = model_from_file(GOLDEN / name)
    assert model.provenance.backbone == "mini"
    assert model.model.adapter_layers == (0,)
    assert model.model.tap_layers == (3, 6)
    assert model.class_name == "weave"
    assert model.is_calibrated
    assert model_from_file(GOLDEN / name, class_name="brick").class_name == "brick"


@pytest.mark.parametrize("name", FILES)
def test_a_folder_and_a_photo(tmp_path, photos, capsys, name):
    alone = tmp_path / "alone.png"
    Image.new("RGB", (50, 200)).save(alone)
    out = tmp_path / "out"
    command = ["predict", str(GOLDEN / name), str(photos), str(alone), "--output", str(out), "--num_workers", "0"]
    main(command)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    for line, path in zip(lines, [alone, *sorted(photos.iterdir())], strict=False):
        score, label, *rest = line.split()
        assert 0 <= float(score) <= 1
        assert label in {"normal", "anomalous"}
        assert rest == [str(path), str(out / "images" / path.relative_to(tmp_path)) + ".jpg"]
        assert (out / "images" / path.relative_to(tmp_path)).with_name(f"{path.name}.jpg").is_file()
    assert lines[-1].startswith("4 photos, ")
    assert lines[-1].endswith(" anomalous, 0 could not be read")
    assert {RESULTS, CONTACT_SHEET} <= {path.name for path in out.iterdir()}
    main(command)  # nothing left to do, and still an answer
    assert capsys.readouterr().out.splitlines() == lines


def test_a_photo_that_cannot_be_read_is_the_exit_status(tmp_path, photos, capsys):
    (photos / "bad.png").write_bytes(b"")
    with pytest.raises(SystemExit) as stopped:
        main(["predict", str(GOLDEN / FILES[0]), str(photos), "--output", str(tmp_path / "out"), "--num_workers", "0"])
    assert stopped.value.code == 1
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"1 could not be read: {photos / 'bad.png'}")


@pytest.mark.parametrize(
    ("weights", "photo", "message"),
    [("gone.ckpt", ".", "there is no adapter file"), (str(GOLDEN / FILES[0]), "gone.png", "no photo or folder gone.png")],
)
def test_what_is_not_there(tmp_path, monkeypatch, weights, photo, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        main(["predict", weights, photo])


def test_the_version(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"dpclip {__version__}\n"
