"""One loaded model, many classes: names and prompts change the text anchors and nothing is loaded again."""

import pytest
import torch
from PIL import Image
from tests.arguments import make_dpclip

from anomalib_dpclip.clip import mini_clip
from anomalib_dpclip.clip.text_tower import TextTower


@pytest.fixture
def encoded(monkeypatch):
    """Classes whose prompts the text tower is given, in turn."""
    names = []
    encode = TextTower.__call__

    def spy(self, sentences):
        names.extend(name for name in ("brick", "wood") if f"{name}." in sentences)
        return encode(self, sentences)

    monkeypatch.setattr(TextTower, "__call__", spy)
    return names


@pytest.fixture
def model(encoded, monkeypatch):
    """A model, after which the backbone cannot be loaded again."""
    model = make_dpclip(backbone="mini", weights="clip", visualizer=False)

    def load_mini_clip(**_):
        raise AssertionError("the backbone is loaded again")

    monkeypatch.setattr(mini_clip, "load_mini_clip", load_mini_clip)
    with pytest.raises(AssertionError, match="loaded again"):
        make_dpclip(backbone="mini", weights="clip")
    return model


@torch.no_grad()
def test_switching_classes_encodes_each_once(model, encoded):
    images = torch.rand(2, 3, 140, 140)
    scores = [model.model.predict(images, model.target.anchors_for(name)).pred_score for name in ("brick", "wood", "brick")]
    assert encoded == ["brick", "wood"]
    assert torch.equal(scores[0], scores[2])
    assert not torch.equal(scores[0], scores[1])


def test_the_host_predicts_one_class_after_the_other(model, encoded, make_engine, tmp_path):
    Image.new("RGB", (140, 140), "grey").save(tmp_path / "photo.png")
    tower, scores = model.model.backbone, []
    for name in ("brick", "wood", "brick"):
        model.target.class_name = name
        (batch,) = make_engine().predict(model=model, data_path=tmp_path / "photo.png")
        scores.append(batch.pred_score.item())
    assert model.model.backbone is tower
    assert encoded == ["brick", "wood"]
    assert scores[0] == scores[2] != scores[1]


@pytest.mark.parametrize(
    "prompts",
    [
        {"normal_states": ["flawless {}"]},
        {"abnormal_states": ["cracked {}", "{} with crack"]},
        {"templates": ["a {}."]},
    ],
    ids=lambda prompts: next(iter(prompts)),
)
def test_prompts_are_arguments(prompts):
    arguments = {"backbone": "mini", "weights": "clip", "class_name": "brick"}
    default, changed = (make_dpclip(**arguments).model.anchors, make_dpclip(**arguments, **prompts).model.anchors)
    same = [torch.equal(default[:, column], changed[:, column]) for column in range(2)]
    assert (
        same
        == {"normal_states": [False, True], "abnormal_states": [True, False], "templates": [False, False]}[next(iter(prompts))]
    )
