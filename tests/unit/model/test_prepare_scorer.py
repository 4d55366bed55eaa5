"""Which way images are scored in a run is decided before the first of them."""

import shutil

import pytest
import torch
from anomalib.data import PredictDataset
from tests.arguments import make_dpclip
from tests.data.golden.make_golden import GOLDEN
from tests.spotted import soft_photo

from anomalib_dpclip import DPCLIP, Photos
from anomalib_dpclip.model import scoring
from anomalib_dpclip.scorers.comparison import Comparison

ADAPTERS = GOLDEN / "adapters-v1.safetensors"


@pytest.fixture
def few(surfaces_root, tmp_path):
    """Twelve weaves, ten of them good, and good ones to compare with."""
    for kind, count in (("good", 10), ("hole", 2)):
        for path in sorted((surfaces_root / "weave" / "test" / kind).iterdir())[:count]:
            (tmp_path / "lot").mkdir(exist_ok=True)
            shutil.copy(path, tmp_path / "lot" / f"{kind}{path.name}")
    (tmp_path / "good").mkdir()
    for path in sorted((surfaces_root / "weave" / "train" / "good").iterdir())[:4]:
        shutil.copy(path, tmp_path / "good")
    return tmp_path


def model_with(few=None, **arguments):
    if few is not None:
        arguments["few_shot_source"] = few / "good"
    return make_dpclip(weights=ADAPTERS, visualizer=False, evaluator=False, **arguments)


def predict(make_engine, model, folder, **engine):
    batches = make_engine(**engine).predict(model=model, datamodule=Photos(folder, batch_size=5, num_workers=0, fresh=True))
    return torch.cat([each.pred_score for each in batches])


@pytest.mark.parametrize(("has_good", "lot"), [(False, True), (True, False), (True, True)])
def test_other_images_tell_what_is_anomalous(few, make_engine, has_good, lot):
    model = model_with(few if has_good else None, lot=lot)
    scores = predict(make_engine, model, few / "lot")
    assert scores[10:].min() > scores[:10].max()
    assert model.scorer.name == model.post_processor.calibration.scorer == ("batch" if lot else "memory")
    model.lot, model.references.source, model.scorer = False, None, model.text_scorer()
    predict(make_engine, model, few / "lot")
    assert model.scorer.name == model.post_processor.calibration.scorer == "text", "nothing is left behind"


def test_a_lot_without_a_pre_processor(few, make_engine):
    model = model_with(lot=True, pre_processor=False)
    batches = make_engine().predict(model=model, dataset=PredictDataset(few / "lot"))
    assert all(each.pred_score.isfinite().all() for each in batches)
    assert model.scorer.name == "batch"


def test_images_are_looked_at_once_a_training(target, make_engine, monkeypatch):
    looked = []
    monkeypatch.setattr(scoring, "require_sound_images", lambda dataset: looked.append(len(dataset)))
    model = make_dpclip(backbone="mini", auxiliary="synthetic", shots=2, visualizer=False, evaluator=False)
    make_engine(max_epochs=2).fit(model=model, datamodule=target)
    assert looked == [len(target.val_data)], "the images of the validation are those of the test"


def test_good_images_stay_for_later_runs_on_the_same_object(few, target, make_engine):
    model = model_with(k_shot=3)
    make_engine().test(model=model, datamodule=target)
    memory = model.scorer.state
    scores = predict(make_engine, model, few / "lot")
    assert model.scorer.state is memory
    assert scores[10:].min() > scores[:10].max()
    model = model_with()
    model.set_references(sorted((few / "good").iterdir()))
    model.add_good_images([few / "lot" / "good000.png"])
    predict(make_engine, model, few / "lot")
    assert model.scorer.state.memory.photos == 5


@pytest.mark.parametrize("lot", [True, False])
def test_what_images_are_compared_with_is_seen_in_their_own_precision(few, make_engine, monkeypatch, lot):
    precisions, encode = [], Comparison.encode

    def watched(comparison, images, anchors, **options):
        precisions.append(torch.is_autocast_enabled("cpu"))
        return encode(comparison, images, anchors, **options)

    monkeypatch.setattr(Comparison, "encode", watched)
    predict(make_engine, model_with(None if lot else few, lot=lot), few / "lot", precision="bf16-mixed")
    assert set(precisions) == {True}


def test_what_cannot_be_judged_by_is_refused(few, make_engine):
    with pytest.raises(ValueError, match="there is nothing to judge with, the adapters are untrained"):
        predict(make_engine, DPCLIP(backbone="mini", class_name="weave"), few / "lot")
    shutil.copy(few / "lot" / "good000.png", few / "good" / "copy.png")
    with pytest.raises(ValueError, match="good000"):
        predict(make_engine, model_with(few), few / "lot")


def test_one_photo_of_a_lot_is_scored_by_the_text(make_engine, tmp_path, caplog):
    soft_photo(tmp_path / "one" / "a.png", 0)
    model = model_with(lot=True)
    predict(make_engine, model, tmp_path / "one")
    assert model.scorer.name == "text"
    assert "a lot of less than two images cannot be compared with itself" in caplog.text
