"""One loaded model, many classes: names and prompts change the text anchors and nothing is loaded again."""

import torch
from PIL import Image
from tests.arguments import make_dpclip

from anomalib_dpclip.clip import mini_clip
from anomalib_dpclip.clip.text_tower import TextTower


def test_the_host_predicts_one_class_after_the_other(make_engine, monkeypatch, tmp_path):
    Image.new("RGB", (140, 140), "grey").save(tmp_path / "photo.png")
    model, encoded, scores, encode = make_dpclip(backbone="mini", weights="clip", visualizer=False), [], [], TextTower.__call__

    def spy(self, sentences):
        encoded.extend(name for name in ("brick", "wood") if f"{name}." in sentences)
        return encode(self, sentences)

    monkeypatch.setattr(TextTower, "__call__", spy)
    monkeypatch.delattr(mini_clip, "load_mini_clip")
    for name in ("brick", "wood", "brick"):
        model.target.class_name = name
        (batch,) = make_engine().predict(model=model, data_path=tmp_path / "photo.png")
        scores.append(batch.pred_score.item())
    assert encoded == ["brick", "wood"]
    assert scores[0] == scores[2] != scores[1]


def test_prompts_are_arguments():
    arguments = {"backbone": "mini", "weights": "clip", "class_name": "brick"}
    default = make_dpclip(**arguments).model.anchors
    for prompts, same in (
        ({"normal_states": ["flawless {}"]}, [False, True]),
        ({"abnormal_states": ["cracked {}", "{} with crack"]}, [True, False]),
        ({"templates": ["a {}."]}, [False, False]),
    ):
        changed = make_dpclip(**arguments, **prompts).model.anchors
        assert [torch.equal(default[:, column], changed[:, column]) for column in range(2)] == same, prompts
