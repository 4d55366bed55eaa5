import csv
from types import SimpleNamespace

import pytest
import torch
from anomalib.data import ImageBatch
from lightning.pytorch.callbacks import BasePredictionWriter

from anomalib_dpclip.callbacks.decision_report import (
    MAX_LISTED,
    MAX_NAMED,
    Decision,
    DecisionReport,
    PredictionReport,
    mistakes,
)

ALARMS = "normal images called anomalous"
EVERYTHING = "Everything was called anomalous: at this threshold the model decides nothing"


def decision(path, score, truth):
    return Decision(path, score, "anomalous" if score > 0.5 else "normal", truth)


@pytest.mark.parametrize(
    ("decisions", "expected"),
    [
        (
            [("0", 0.1, "normal"), ("1", 0.7, "normal"), ("2", 0.9, "normal"), ("3", 0.4, "anomalous")],
            ["1 of 1 anomalous images missed:", "  0.400  3", f"2 of 3 {ALARMS}:", "  0.900  2", "  0.700  1"],
        ),
        ([("a", 0.1, "normal"), ("b", 0.9, "anomalous")], ["0 of 1 anomalous images missed.", f"0 of 1 {ALARMS}."]),
        (
            [("a", 0.8, "normal"), ("b", 0.9, "anomalous")],
            ["0 of 1 anomalous images missed.", f"1 of 1 {ALARMS}:", "  0.800  a", f"{EVERYTHING}, whatever F1Max says."],
        ),
        ([("a", 0.6, "normal"), ("b", 0.4, "normal")], [f"1 of 2 {ALARMS}:", "  0.600  a"]),
        ([("a", 0.6, "anomalous"), ("b", 0.4999996, "anomalous")], ["1 of 2 anomalous images missed:", "  0.4999996  b"]),
    ],
)
def test_what_there_is_to_say_is_said(decisions, expected):
    assert mistakes([decision(f"/data/{path}", *rest) for path, *rest in decisions], "/data") == expected


def test_many_mistakes_are_cut_short():
    _, *lines = mistakes([decision(f"{index}.png", index / 100, "anomalous") for index in range(MAX_NAMED + 3)])
    assert lines == [*(f"  0.0{index}0  {index}.png" for index in range(MAX_NAMED)), "  and 3 more"]


def test_the_file_holds_all(tmp_path):
    report = DecisionReport()
    report._decisions = [decision('with ", and \udcff.png', 0.1234567, "normal"), Decision("b", 0.5, "normal", "")]
    report.on_test_end(SimpleNamespace(default_root_dir=tmp_path / "x"), SimpleNamespace(post_processor=None))
    with (tmp_path / "x" / "decisions.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["path", "score", "label", "truth"],
        ['with ", and \udcff.png', "0.123457", "normal", "normal"],
        ["b", "0.500000", "normal", ""],
    ]


def predict(count, *callbacks):
    """A run of batches of one photo, which are drawn while the next is predicted."""
    drawer = SimpleNamespace(pictures={})
    trainer = SimpleNamespace(callbacks=[drawer, *callbacks], lightning_module=None)
    report = PredictionReport()
    report.on_predict_start(trainer, None)
    for index in range(count):
        drawer.pictures = {f"{index - 1}.png": f"out/{index - 1}.jpg"}
        score = torch.tensor([index / 10])
        batch = ImageBatch(image=torch.zeros(1, 3, 4, 4), image_path=[f"{index}.png"], pred_score=score, pred_label=score > 0.5)
        report.on_predict_batch_end(trainer, None, None, batch, index)
    drawer.pictures = {f"{count - 1}.png": f"out/{count - 1}.jpg"}
    report.on_predict_end(trainer, None)


def test_of_many_photos_some_have_lines_and_it_is_how_many(capsys):
    predict(MAX_LISTED + 5)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == MAX_LISTED + 1
    assert said[0] == "0.000  normal     0.png  out/0.jpg"
    assert said[6] == "0.600  anomalous  6.png  out/6.jpg"
    assert said[-1] == f"and 5 more: {MAX_LISTED + 5 - 6} of {MAX_LISTED + 5} anomalous"


@pytest.mark.parametrize("interval", ["batch", "epoch"])
def test_where_results_are_written_nothing_is_listed(capsys, interval):
    predict(2, BasePredictionWriter(interval))
    assert capsys.readouterr().out == ""
