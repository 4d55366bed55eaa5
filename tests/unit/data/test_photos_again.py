"""Photos predicted a second time: where a run stopped, by another model, beside earlier pictures, with hard names."""

import csv
from pathlib import Path

import pytest
import torch
from tests.unit.data.test_photos import Brightness, predict, read_results, rows, save

from anomalib_dpclip.data.results.rows import RESULTS


@pytest.fixture
def root(tmp_path):
    for index in range(3):
        save(tmp_path / "line 3" / f"{index}.png", 100 * index)
    return tmp_path / "line 3"


def test_results_of_another_model_are_set_aside(root, tmp_path, caplog):
    out = tmp_path / "out"
    predict(root, out)
    before = (out / RESULTS).read_text()
    model = next(iter(read_results(out).values())).model
    caplog.set_level("INFO")
    predict(root, out, Brightness(threshold=0.9))
    assert rows(out, root)[2] == ("2.png", "0.784314", "normal", "ok")
    assert (out / f"results-{model}.csv").read_text() == before
    assert sum(f"results-{model}.csv" in record.getMessage() for record in caplog.records) == 1
    # And back again: what was set aside is taken up, not overwritten.
    assert not predict(root, out).batches
    assert (out / RESULTS).read_text() == before


def test_precision_is_a_setting_and_workers_are_none(root, tmp_path):
    predict(root, tmp_path / "out")
    assert not predict(root, tmp_path / "out", Brightness(num_workers=3)).batches
    assert predict(root, tmp_path / "out", precision="bf16-mixed").batches


def test_pictures_of_an_earlier_run_inside_the_root_are_no_photos(root):
    predict(root, root / "first")
    save(root / "first" / "images" / "line 3" / "0.png", 9)
    predict(root, root / "second")
    assert [path for path, *_ in rows(root / "second", root)] == ["0.png", "1.png", "2.png"]
    assert [path for path, *_ in rows(root / "first", root)] == ["0.png", "1.png", "2.png"]


def test_a_folder_with_results_csv_of_something_else_is_one_of_photos(root, tmp_path):
    save(root / "lot 4" / "0.png", 9)
    (root / "lot 4" / RESULTS).write_text("batch,inspector\n4,Kim\n")
    predict(root, tmp_path / "out")
    assert "lot 4/0.png" in [path for path, *_ in rows(tmp_path / "out", root)]


def test_pictures_of_a_root_that_is_the_output_itself(root):
    save(root / "images" / "a.png", 9)  # photos that are called so, until this run writes there
    predict(root, root)
    assert [path for path, *_ in rows(root, root)] == ["0.png", "1.png", "2.png", "images/a.png"]


@pytest.mark.parametrize("name", ["a\rb.png", "a\nb.png", "a\r\nb.png", 'a"\r,b.png', "\r.png"])
def test_names_with_line_breaks_are_done_once(root, tmp_path, name):
    try:
        (root / "0.png").rename(root / name)
    except OSError:
        pytest.skip("this file system takes no such names")
    predict(root, tmp_path / "out")
    assert not predict(root, tmp_path / "out").batches
    with (tmp_path / "out" / RESULTS).open(encoding="utf-8", newline="") as stream:
        assert len(list(csv.reader(stream))) == 4
    assert str(root / name) in read_results(tmp_path / "out")


def test_formats_of_phones_and_cameras_are_named(root, tmp_path, caplog):
    (root / "IMG_0001.HEIC").write_bytes(b"x")
    (root / "b.dng").write_bytes(b"x")
    predict(root, tmp_path / "out")
    assert len(rows(tmp_path / "out")) == 3
    (line,) = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert line.startswith("2 photos left out, such as ")
    assert ".dng, .heic cannot be read" in line


class InTheLightOfOthers(Brightness):
    """Scores depend on the lot of photos, and on references."""

    references = "none"

    def prediction_digest(self, images):
        return str([self.references, *images])


def test_a_lot_with_more_photos_or_other_references_is_predicted_whole(root, tmp_path):
    """What was scored on another scale is never mixed in."""
    model = InTheLightOfOthers()
    predict(root, tmp_path / "out", model)
    model.threshold = torch.nn.Parameter(torch.tensor(0.5))  # its state is no part of the digest
    assert not predict(root, tmp_path / "out", model).batches[1:]
    save(root / "3.png", 5)
    assert [len(batch) for batch in predict(root, tmp_path / "out", model).batches[1:]] == [4]
    model.references = "four good photos"
    predict(root, tmp_path / "out", model)
    assert [len(batch) for batch in model.batches] == [3, 4, 4]
    assert len({row.model for row in read_results(tmp_path / "out").values()}) == 1


def test_rows_of_an_earlier_run_come_first(root, tmp_path):
    predict(root, tmp_path / "out")
    save(root / "1a.png", 5)
    predict(root, tmp_path / "out")
    assert [path for path, *_ in rows(tmp_path / "out", root)] == ["0.png", "1.png", "2.png", "1a.png"]


class StopsAfter(Brightness):
    """Loses power in the middle of a run."""

    def predict_step(self, batch, batch_idx):
        if batch_idx == self.threshold:
            raise RuntimeError("power cut")
        return super().predict_step(batch, batch_idx)


def test_goes_on_where_it_stopped(root, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(RuntimeError, match="power cut"):
        predict(root, out, StopsAfter(threshold=1), batch_size=1)
    assert [path for path, *_ in rows(out, root)] == ["0.png"]
    with (out / RESULTS).open("a") as stream:
        stream.write(f"{root}/1.png,0.123")  # cut off in the middle of a row

    second = StopsAfter(threshold=1)
    predict(root, out, second, batch_size=2)
    assert [Path(path).name for batch in second.batches for path in batch.image_path] == ["1.png", "2.png"]
    assert [row[:2] for row in rows(out, root)] == [("0.png", "0.000000"), ("1.png", "0.392157"), ("2.png", "0.784314")]


def test_what_was_bad_is_tried_again(root, tmp_path):
    good = (root / "0.png").read_bytes()
    (root / "0.png").write_bytes(b"")
    predict(root, tmp_path / "out")
    (root / "0.png").write_bytes(good)
    model = predict(root, tmp_path / "out")
    assert [len(batch) for batch in model.batches] == [1]
    assert min(rows(tmp_path / "out", root)) == ("0.png", "0.000000", "normal", "ok")
    assert len(rows(tmp_path / "out", root)) == 3
