import json
import tracemalloc

import torch
from lightning.pytorch import LightningModule

from anomalib_dpclip.data.results import RESULTS, RESULTS_JSON, Result, summary
from anomalib_dpclip.data.results.rows import append_rows, read_parts, write_results
from anomalib_dpclip.data.results.writer import prediction_digest


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
