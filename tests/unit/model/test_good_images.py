"""Good images of a model: set, added to, forgotten, kept, and decided on before the first image of a run."""

import shutil

import pytest
import torch
from anomalib import LearningType
from anomalib.data import PredictDataset
from PIL import Image
from tests.arguments import make_dpclip
from tests.data.golden.make_golden import GOLDEN
from tests.spotted import soft_photo

from anomalib_dpclip import DPCLIP, Photos
from anomalib_dpclip.model import scoring
from anomalib_dpclip.scorers.comparison import Comparison
from anomalib_dpclip.scorers.references import image_tensor

ADAPTERS = GOLDEN / "adapters-v1.safetensors"


def model_with(**arguments):
    return make_dpclip(weights=ADAPTERS, visualizer=False, evaluator=False, **arguments).eval()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    return [soft_photo(folder / f"{seed}.png", seed) for seed in range(4)]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    return torch.stack([image_tensor(soft_photo(folder / f"{i}.png", 9 + i, (30, 60) if i else None)) for i in range(2)])


@torch.no_grad()
def predicted(model, images):
    found = model(images)
    return torch.cat([found.pred_score, found.anomaly_map.flatten()])


def test_set_and_forgotten(photos, images):
    model = model_with()
    before = predicted(model, images)
    assert model.learning_type == LearningType.ZERO_SHOT
    model.set_references(photos)
    assert model.learning_type == LearningType.FEW_SHOT
    found = model(images)
    assert found.pred_label.tolist() == [False, True]
    assert model.scorer.state.memory.photos == 4
    model.set_references(photos[:1])
    one = model(images).pred_score
    assert one[1] > one[0]
    assert one.isfinite().all()
    model.set_references([])
    assert torch.equal(predicted(model, images), before), "with the thresholds of then"
    assert not any("scorer_state" in name for name in model.state_dict())


def test_more_join_them(photos, images):
    model = model_with()
    with pytest.raises(ValueError, match="there is no memory of good photos that others could join"):
        model.add_good_images(photos)
    model.set_references(photos)
    before = predicted(model, images)
    model.add_good_images(images[1:])
    assert model.scorer.state.memory.photos == 5
    assert predicted(model, images)[1] < before[1]


def test_they_are_kept_in_a_state_dict_of_any_size(photos, images):
    model, other = model_with(), model_with()
    model.set_references(photos)
    for count in (4, 2):
        model.set_references(photos[:count])
        other.load_state_dict(model.state_dict())
        assert torch.equal(predicted(other, images), predicted(model, images))
    other.load_state_dict(model_with().state_dict())
    assert other.scorer.name == "text"


def test_photos_remembered_by_other_layers_are_asked_for_anew(photos):
    """As by the argument `memory.layers`, or in a checkpoint of an earlier development version."""
    model = model_with()
    model.set_references(photos[:2])
    state = model.state_dict()
    del state["scorer_state.memory.layer1"]
    with pytest.raises(
        ValueError, match=r"by 1 layers, and this model compares 2: .* give the photos anew with --model.weights"
    ):
        model_with().load_state_dict(state)


def test_the_digest_follows_what_predictions_depend_on(photos, tmp_path):
    def digest(images=("a.png",), **arguments):
        return model_with(**arguments).prediction_digest(images)

    plain = digest()
    assert digest() == digest(images=["b.png"]) == plain, "images are scored by themselves"
    assert digest(lot=True) != digest(images=["b.png"], lot=True)
    others = [digest(domain="medical"), digest(class_name="brick"), digest(min_area=3), digest(tiles=2)]
    assert len({plain, *others}) == 5
    folder = soft_photo(tmp_path / "good" / "a.png", 0).parent
    model = model_with(few_shot_source=folder)
    first = model.prediction_digest(["a.png"])
    soft_photo(folder / "b.png", 1)
    assert first != model.prediction_digest(["a.png"]) != plain


def test_an_export_has_the_photos_that_arguments_name(photos, caplog):
    model = model_with(few_shot_source=photos[0].parent)
    model.prepare_export()
    assert model.scorer.state.memory.photos == 4
    model_with(lot=True).prepare_export()
    assert "an exported file sees one image at a time: it scores without the lot" in caplog.text
    with pytest.raises(ValueError, match="takes photos of a training split, which an export does not have"):
        model_with(k_shot=2).prepare_export()


def test_photos_of_another_size_than_what_is_ignored_was_drawn_for(tmp_path):
    picture = Image.new("L", (200, 150))
    picture.paste(255, (0, 0, 50, 50))
    picture.save(tmp_path / "ignore.png")
    with pytest.raises(ValueError, match="photo 1 of the target is 200x100, and the picture of what to ignore is 200x150"):
        model_with(ignore=tmp_path / "ignore.png").set_references([torch.zeros(3, 150, 200), torch.zeros(3, 100, 200)])


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


def predict(make_engine, model, folder, **engine):
    batches = make_engine(**engine).predict(model=model, datamodule=Photos(folder, batch_size=5, num_workers=0, fresh=True))
    return torch.cat([each.pred_score for each in batches])


@pytest.mark.parametrize(("has_good", "lot"), [(False, True), (True, False), (True, True)])
def test_other_images_tell_what_is_anomalous(few, make_engine, has_good, lot):
    model = model_with(few_shot_source=few / "good" if has_good else None, lot=lot)
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
    model = model_with(few_shot_source=None if lot else few / "good", lot=lot)
    predict(make_engine, model, few / "lot", precision="bf16-mixed")
    assert set(precisions) == {True}


def test_what_cannot_be_judged_by_is_refused(few, make_engine):
    with pytest.raises(ValueError, match="there is nothing to judge with, the adapters are untrained"):
        predict(make_engine, DPCLIP(backbone="mini", class_name="weave"), few / "lot")
    shutil.copy(few / "lot" / "good000.png", few / "good" / "copy.png")
    with pytest.raises(ValueError, match="good000"):
        predict(make_engine, model_with(few_shot_source=few / "good"), few / "lot")


def test_one_photo_of_a_lot_is_scored_by_the_text(make_engine, tmp_path):
    soft_photo(tmp_path / "one" / "a.png", 0)
    model = model_with(lot=True)
    predict(make_engine, model, tmp_path / "one")
    assert model.scorer.name == "text"
