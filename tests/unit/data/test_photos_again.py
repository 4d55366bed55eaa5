import csv
import os
from pathlib import Path

import pytest
import torch
from tests.unit.data.test_photos import Brightness, predict, results, save, scores

from anomalib_dpclip.data.results import RESULTS

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
