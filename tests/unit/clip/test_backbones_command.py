"""`dpclip backbones`: the table of what fits, against models built for real."""

import json

import open_clip
import pytest

from anomalib_dpclip import cli
from anomalib_dpclip.clip import command
from anomalib_dpclip.clip.loading import load_clip

NAMES = ["ViT-S-32-alt", "RN50", "vit_medium_patch16_gap_256", "ViT-B-16-SigLIP", "ViT-H-14-378-quickgelu"]


@pytest.fixture(autouse=True)
def _few_models(monkeypatch):
    monkeypatch.setattr(open_clip, "list_models", lambda: NAMES)


def test_rows_are_the_models(capsys):
    cli.main(["backbones", "--json", "--all"])
    rows = {row["backbone"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == ["mini", *NAMES]
    assert rows["RN50"] == {"backbone": "RN50", "refused": "is a ResNet, not a vision transformer"}
    for name, size in (("mini", 140), ("ViT-S-32-alt", 224), ("vit_medium_patch16_gap_256", 256)):
        clip, _ = load_clip(name, "random", size)  # the size of the weights: a larger one has more positions
        assert rows[name]["parameters"] == sum(value.numel() for value in clip.parameters())
        assert rows[name]["vision_parameters"] == sum(value.numel() for value in clip.visual.parameters())
    assert load_clip("ViT-S-32-alt", "random")[0].visual.image_size == (512, 512)
    assert (rows["ViT-S-32-alt"]["patch"], rows["ViT-S-32-alt"]["image_size"]) == (32, 512)
    (tag,) = rows["ViT-B-16-SigLIP"]["pretrained"]
    assert tag == {
        "tag": "webli",
        "licence": None,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "interpolation": "bicubic",
        "quick_gelu": False,
    }
    assert rows["ViT-H-14-378-quickgelu"]["pretrained"][0]["quick_gelu"]


def test_the_table(capsys, monkeypatch):
    monkeypatch.setattr(open_clip, "list_models", lambda: ["ViT-L-14-336", "RN50"])
    command.backbones(all=True)
    header, mini, large, resnet = capsys.readouterr().out.splitlines()
    assert header.split() == ["backbone", "vision", "total", "patch", "image", "pretrained", "(licence)"]
    assert mini.split()[:5] == ["mini", "1.3M", "1.4M", "14", "140"]
    # OpenAI's own figures: a vision tower of 304 million parameters, 428 million in all.
    assert large.split()[:6] == ["ViT-L-14-336", "304.3M", "427.9M", "14", "518", "openai"]
    assert resnet.split(maxsplit=1) == ["RN50", "refused: it is a ResNet, not a vision transformer"]
    command.backbones()
    assert "RN50" not in capsys.readouterr().out
