"""Predictions of a bare path are listed, with their pictures."""

from types import SimpleNamespace

import pytest
import torch
from anomalib.data import ImageBatch
from lightning.pytorch.callbacks import BasePredictionWriter

from anomalib_dpclip.callbacks.decision_report import MAX_LISTED, PredictionReport


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


def test_each_photo_has_a_line(capsys):
    predict(7)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "0.000  normal     0.png  out/0.jpg"
    assert said[6] == "0.600  anomalous  6.png  out/6.jpg"
    assert len(said) == 7


def test_of_many_it_is_how_many(capsys):
    predict(MAX_LISTED + 5)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == MAX_LISTED + 1
    assert said[-1] == f"and 5 more: {MAX_LISTED + 5 - 6} of {MAX_LISTED + 5} anomalous"


@pytest.mark.parametrize("interval", ["batch", "epoch"])
def test_where_results_are_written_nothing_is_listed(capsys, interval):
    predict(2, BasePredictionWriter(interval))
    assert capsys.readouterr().out == ""
