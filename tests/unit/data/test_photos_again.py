"""Photos predicted a second time: where a run stopped, by another model, with hard names; and the files of results."""

import csv
import json
import os
import tracemalloc
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule
from tests.unit.data.test_photos import Brightness, predict, results, save, scores

from anomalib_dpclip.data.results import RESULTS, RESULTS_JSON, Result, summary
from anomalib_dpclip.data.results.rows import append_rows, read_parts, write_results
from anomalib_dpclip.data.results.writer import prediction_digest

SCORES = {"0.png": 0, "1.png": 0.392157, "2.png": 0.784314}


@pytest.fixture
def root(tmp_path):
    for index in range(3):
        save(tmp_path / "line 3" / f"{index}.png", 100 * index)
    return tmp_path / "line 3"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def test_results_of_another_model_are_set_aside(root, out, caplog):
    predict(root, out)
    before = (out / RESULTS).read_text()
    model = next(iter(results(out).values())).model
    caplog.set_level("INFO")
    predict(root, out, Brightness(threshold=0.9))
    assert results(out)[str(root / "2.png")].label == "normal"
    assert (out / f"results-{model}.csv").read_text() == before
    assert sum(f"results-{model}.csv" in message for message in caplog.messages) == 1
    # And back again: what was set aside is taken up, not overwritten.
    assert not predict(root, out).batches
    assert (out / RESULTS).read_text() == before


@pytest.mark.parametrize("again", [{"precision": "bf16-mixed"}, {"reduced_jpeg": True}, {"bit_depth": 12}, {"fresh": True}])
def test_settings_that_change_predictions(root, out, again):
    predict(root, out)
    assert not predict(root, out, Brightness(num_workers=3)).batches
    assert predict(root, out, **again).batches
    assert len(results(out)) == 3


def test_pictures_of_an_earlier_run_inside_the_root_are_no_photos(root):
    save(root / "images" / "a.png", 9)  # photos that are called so, until this run writes there
    predict(root, root)
    assert list(scores(root, root)) == [*SCORES, "images/a.png"]
    predict(root, root / "second")
    assert scores(root / "second", root) == SCORES


def test_a_folder_with_results_csv_of_something_else_is_one_of_photos(root, out):
    save(root / "lot 4" / "0.png", 9)
    (root / "lot 4" / RESULTS).write_text("batch,inspector\n4,Kim\n")
    predict(root, out)
    assert "lot 4/0.png" in scores(out, root)


@pytest.mark.parametrize("name", ["a\nb.png", 'a"\r,b.png', os.fsdecode(b', "\xff.png')])
def test_hard_names_are_done_once(root, out, name):
    try:
        (root / "0.png").rename(root / name)
    except OSError:
        pytest.skip("this file system takes no such names")
    predict(root, out)
    assert not predict(root, out).batches
    with (out / RESULTS).open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        assert len(list(csv.reader(stream))) == 4
    assert str(root / name) in results(out)


class InTheLightOfOthers(Brightness):
    """Scores depend on the lot of photos, and on references."""

    references = "none"

    def prediction_digest(self, images):
        return str([self.references, *images])


def test_a_lot_with_more_photos_or_other_references_is_predicted_whole(root, out):
    model = InTheLightOfOthers()
    predict(root, out, model)
    model.threshold = torch.nn.Parameter(torch.tensor(0.5))  # its state is no part of the digest
    predict(root, out, model)
    save(root / "3.png", 5)
    predict(root, out, model)
    model.references = "four good photos"
    predict(root, out, model)
    assert [len(batch) for batch in model.batches] == [3, 4, 4]
    assert len({row.model for row in results(out).values()}) == 1


class StopsAfter(Brightness):
    """Loses power in the middle of a run."""

    def predict_step(self, batch, batch_idx):
        if batch_idx == self.threshold:
            raise RuntimeError("power cut")
        return super().predict_step(batch, batch_idx)


def test_goes_on_where_it_stopped(root, out):
    with pytest.raises(RuntimeError, match="power cut"):
        predict(root, out, StopsAfter(threshold=1), batch_size=1)
    assert scores(out, root) == {"0.png": 0}
    with (out / RESULTS).open("a") as stream:
        stream.write(f"{root}/1.png,0.123")  # cut off in the middle of a row
    second = StopsAfter(threshold=1)
    predict(root, out, second, batch_size=2)
    assert [Path(path).name for batch in second.batches for path in batch.image_path] == ["1.png", "2.png"]
    assert scores(out, root) == SCORES


def test_what_was_bad_is_tried_again_and_earlier_rows_come_first(root, out):
    good = (root / "0.png").read_bytes()
    (root / "0.png").write_bytes(b"")
    predict(root, out)
    (root / "0.png").write_bytes(good)
    assert [len(batch) for batch in predict(root, out).batches] == [1]
    assert list(scores(out, root).items()) == [("1.png", 0.392157), ("2.png", 0.784314), ("0.png", 0)]


class Linear(LightningModule):
    def __init__(self, shift=0.0, bias=0.0, num_workers=0):
        super().__init__()
        self.save_hyperparameters(ignore="bias")
        self.bias = torch.nn.Parameter(torch.tensor(bias))


def test_the_digest_tells_weights_arguments_and_settings_apart():
    digests = [
        prediction_digest(model, ["a.png"], settings)
        for model in (Linear(), Linear(bias=1.0), Linear(shift=1.0))
        for settings in ({}, {"bit_depth": 12})
    ]
    assert len(set(digests)) == 6
    assert prediction_digest(Linear(num_workers=3), ["other.png"], {}) == digests[0]


def test_files_of_other_processes_are_merged(tmp_path):
    a, b, c = (Result(name, "0.5", "normal", "ok", "m") for name in "abc")
    append_rows(tmp_path, 0, [a])
    append_rows(tmp_path, 1, [b])
    append_rows(tmp_path, 0, [c])
    assert list(read_parts(tmp_path)) == [a, b, c]
    write_results(tmp_path, read_parts(tmp_path))
    assert list(read_parts(tmp_path)) == [a, b, c]
    assert sorted(path.name for path in tmp_path.iterdir()) == [RESULTS, RESULTS_JSON]


def test_the_json_file_says_the_same(tmp_path):
    regions = [{"box": [1, 2, 3, 4], "score": 0.9, "area": 7}]
    known = {"regions": json.dumps(regions), "good_below": "0.975000", "good_photos": "80"}
    rows = [
        Result("a.png", "", "", "cannot read image", "m"),
        Result("b.png", "0.900000", "anomalous", "ok", "m", "images/b.png.jpg", **known),
    ]
    write_results(tmp_path, rows)
    assert list(read_parts(tmp_path)) == rows
    unread, found = json.loads((tmp_path / RESULTS_JSON).read_text())
    assert unread["score"] is unread["good_below"] is unread["good_photos"] is None
    assert unread["regions"] == []
    assert (found["score"], found["good_below"], found["good_photos"], found["regions"]) == (0.9, 0.975, 80, regions)
    write_results(tmp_path, [])
    assert json.loads((tmp_path / RESULTS_JSON).read_text()) == []


def test_memory_does_not_grow_with_the_rows(tmp_path):
    rows = (Result(f"{'x' * 200}{index}.png", "0.5", "normal", "ok", "m") for index in range(20_000))  # 9 MB of rows
    tracemalloc.start()
    try:
        write_results(tmp_path, rows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 500_000


def test_a_summary_names_the_first_photos_that_could_not_be_read():
    rows = [Result(f"{index:02}.png", "", "", "cannot read image", "m") for index in range(12)]
    names = ", ".join(f"{index:02}.png" for index in range(10))
    assert summary(rows) == f"12 photos, 0 anomalous, 12 could not be read: {names} and 2 more"
