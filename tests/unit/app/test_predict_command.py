import json

import pytest
from PIL import Image
from tests.data.golden.make_golden import GOLDEN

from anomalib_dpclip import __version__
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
