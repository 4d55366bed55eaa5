"""`dpclip predict`: everything about the model from its file, a line a photo, a summary, and the exit status."""

import json

import pytest
from PIL import Image
from tests.data.golden.make_golden import GOLDEN

from anomalib_dpclip import __version__
from anomalib_dpclip.cli import main
from anomalib_dpclip.data.results import CONTACT_SHEET, RESULTS, RESULTS_JSON
from anomalib_dpclip.model.from_file import model_from_file
from anomalib_dpclip.post_processing.standing import Standing


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
    assert model.target.anchor_class == "weave"
    assert model.post_processor.calibration.is_set
    assert model_from_file(GOLDEN / name, class_name="brick").target.anchor_class == "brick"


@pytest.mark.parametrize("name", FILES)
def test_a_folder_and_a_photo(tmp_path, photos, capsys, name):
    alone = tmp_path / "alone.png"
    Image.new("RGB", (50, 200)).save(alone)
    out = tmp_path / "out"
    command = ["predict", "--weights", str(GOLDEN / name), str(photos), str(alone), "--output", str(out), "--num_workers", "0"]
    main(command)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    for line, path in zip(lines, [alone, *sorted(photos.iterdir())], strict=False):
        score, label, *rest = line.split()
        assert 0 <= float(score) <= 1
        assert label in ({"normal", "anomalous"} if "checkpoint" in name else {"uncalibrated"})
        assert rest == [str(path), str(out / "images" / path.relative_to(tmp_path)) + ".jpg"]
        assert (out / "images" / path.relative_to(tmp_path)).with_name(f"{path.name}.jpg").is_file()
    assert lines[-2].startswith("4 photos, ")
    assert lines[-2].endswith(", 0 could not be read")
    assert lines[-1].startswith("Thresholds: " if "checkpoint" in name else "Uncalibrated: ")
    assert {RESULTS, RESULTS_JSON, CONTACT_SHEET} <= {path.name for path in out.iterdir()}
    main(command)  # nothing left to do, and still an answer
    again = capsys.readouterr()
    assert again.out.splitlines() == [*lines[:-1], f"Nothing to do: all 4 photos have results in {out}."]
    assert again.err == ""
    Image.new("RGB", (160, 120)).save(photos / "more.png")
    main(command)
    assert capsys.readouterr().out.splitlines()[-1] == lines[-1]


def test_what_exceeds_the_threshold_is_listed_in_pixels_of_the_photo(tmp_path, photos):
    with Image.open(photos / "0.png") as photo:
        defective = photo.copy()
    defective.paste((255, 0, 255), (100, 20, 150, 60))
    defective.save(photos / "0.png")
    command = [
        "predict",
        "--weights",
        str(GOLDEN / FILES[1]),
        str(photos),
        "--num_workers",
        "0",
        "--pictures",
        "false",
        "--output",
    ]
    main([*command, str(tmp_path / "all")])
    main([*command, str(tmp_path / "large"), "--min_area", "19200"])
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
    good, new = tmp_path / "good", tmp_path / "new.png"
    photos.rename(good)
    Image.new("RGB", (160, 120), (255, 0, 255)).save(new)
    weights, out = ["--weights", str(GOLDEN / FILES[0])], tmp_path / "out"
    main(["predict", *weights, "--good", str(good), str(new), "--output", str(out), "--num_workers", "0"])
    line, *_ = capsys.readouterr().out.splitlines()
    (row,) = json.loads((out / RESULTS_JSON).read_text())
    assert row["good_photos"] == 3
    assert row["most_like"] == "2.png", "the lightest of them"
    assert line.endswith(f"  {Standing(round(3 * row['good_below']), 3)}, most like 2.png")


def test_a_photo_that_cannot_be_read_is_the_exit_status(tmp_path, photos, capsys):
    (photos / "bad.png").write_bytes(b"")
    with pytest.raises(SystemExit) as stopped:
        main(
            [
                "predict",
                "--weights",
                str(GOLDEN / FILES[0]),
                str(photos),
                "--output",
                str(tmp_path / "out"),
                "--num_workers",
                "0",
            ]
        )
    assert stopped.value.code == 1
    assert capsys.readouterr().out.splitlines()[-2].endswith(f"1 could not be read: {photos / 'bad.png'}")


@pytest.mark.parametrize(
    ("weights", "photo", "message"),
    [("gone.ckpt", ".", "there is no adapter file"), (str(GOLDEN / FILES[0]), "gone.png", "no photo or folder gone.png")],
)
def test_what_is_not_there(tmp_path, monkeypatch, weights, photo, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        main(["predict", "--weights", weights, photo])


def test_the_version(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"dpclip {__version__}\n"


def test_good_photos_that_are_to_be_scored_too_are_named_with_the_command_s_own_option(tmp_path, photos):
    command = ["predict", "--weights", str(GOLDEN / FILES[0]), "--good", str(photos), "--num_workers", "0", "--output"]
    with pytest.raises(SystemExit, match=r"Choose other photos with --good, or other ones to score"):
        main([*command, str(tmp_path / "out"), str(photos)])
    (tmp_path / "empty").mkdir()
    command[command.index(str(photos))] = str(tmp_path / "empty")
    with pytest.raises(SystemExit, match=r"no images in .*empty: --good must be the folder of the good photos"):
        main([*command, str(tmp_path / "out"), str(photos)])
