"""Good images of a model from Python: set, added to, forgotten, kept, and ready for an export."""

import pytest
import torch
from anomalib import LearningType
from PIL import Image
from tests.arguments import make_dpclip
from tests.data.golden.make_golden import GOLDEN
from tests.spotted import soft_photo

from anomalib_dpclip.scorers.references import image_tensor

ADAPTERS = GOLDEN / "adapters-v1.safetensors"


def model_with(**arguments):
    return make_dpclip(weights=ADAPTERS, visualizer=False, **arguments).eval()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    return [soft_photo(folder / f"{seed}.png", seed) for seed in range(4)]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A good one, and one with a spot."""
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
