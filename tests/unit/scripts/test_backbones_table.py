"""`dpclip backbones`, and the table behind it, against models built for real."""

import json
import re
from importlib.metadata import version

import pytest
from scripts.backbones_table import page, rows
from tests.paths import ROOT

from anomalib_dpclip import cli
from anomalib_dpclip.clip import command
from anomalib_dpclip.clip.command import TABLE
from anomalib_dpclip.clip.loading import load_clip

NAMES = ["mini", "ViT-S-32-alt", "RN50", "vit_medium_patch16_gap_256", "ViT-B-16-SigLIP", "ViT-H-14-378-quickgelu"]


def test_rows_are_the_models():
    table = {row["backbone"]: row for row in rows(NAMES)}
    assert list(table) == NAMES
    assert table["RN50"] == {"backbone": "RN50", "refused": "is a ResNet, not a vision transformer"}
    for name, size in (("mini", 140), ("ViT-S-32-alt", 224), ("vit_medium_patch16_gap_256", 256)):
        clip, _ = load_clip(name, "random" if name != "mini" else "openai", size)
        assert table[name]["parameters"] == sum(value.numel() for value in clip.parameters())
        assert table[name]["vision_parameters"] == sum(value.numel() for value in clip.visual.parameters())
    assert (table["ViT-S-32-alt"]["patch"], table["ViT-S-32-alt"]["image_size"]) == (32, 512)
    (tag,) = table["ViT-B-16-SigLIP"]["pretrained"]
    statistics = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
    assert tag == {"tag": "webli", "licence": "apache-2.0", "quick_gelu": False} | statistics
    assert table["ViT-H-14-378-quickgelu"]["pretrained"][0]["quick_gelu"]


def test_the_table_is_that_of_the_installed_open_clip():
    stored = TABLE.read_text(encoding="utf-8")
    if json.loads(stored)["open_clip"] != version("open_clip_torch"):
        pytest.skip("the table is of another open_clip")
    assert page() == stored, "run python -m scripts.backbones_table"


def test_every_licence_is_stated():
    table = json.loads(TABLE.read_text(encoding="utf-8"))["rows"]
    assert not [row["backbone"] for row in table for tag in row.get("pretrained", ()) if tag["licence"] is None]


def test_the_page_names_backbones_tags_and_licences_that_there_are():
    table = {row["backbone"]: row for row in json.loads(TABLE.read_text(encoding="utf-8"))["rows"]}
    text = (ROOT / "docs" / "backbones.md").read_text(encoding="utf-8")
    families = text.partition("| family | example | weights |")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(families) == 9
    for line in families:
        _, _, names, tags, licence, *_ = line.split("|")
        for name in re.findall("`(.+?)`", names):
            stated = {tag["tag"]: tag["licence"] for tag in table[name]["pretrained"]}
            known = stated.keys() & set(re.findall("`(.+?)`", tags))
            assert known, line
            assert all(stated[tag] in licence.lower() for tag in known), line


def test_the_table(capsys, monkeypatch):
    monkeypatch.setattr(command, "installed_models", lambda: {"ViT-L-14-336", "RN50", "ViT-H-14", "ViT-of-tomorrow"})
    command.backbones(all=True)
    header, mini, resnet, huge, large, newer = capsys.readouterr().out.splitlines()
    assert header.split() == ["backbone", "vision", "total", "patch", "image", "pretrained", "(licence)"]
    assert mini.split()[:5] == ["mini", "1.3M", "1.4M", "14", "140"]
    assert resnet.split(maxsplit=1) == ["RN50", "refused: it is a ResNet, not a vision transformer"]
    assert "  laion2b_s32b_b79k (mit), metaclip_fullcc (cc-by-nc-4.0), " in huge
    # OpenAI's own figures: a vision tower of 304 million parameters, 428 million in all.
    assert large.split() == ["ViT-L-14-336", "304.3M", "427.9M", "14", "518", "openai", "(mit)"]
    assert newer.startswith("Not in this table, which is of open_clip ")
    assert newer.endswith(": ViT-of-tomorrow")
    command.backbones()
    assert "RN50" not in capsys.readouterr().out


def test_json(capsys):
    cli.main(["backbones", "--json"])
    rows = {row["backbone"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["ViT-L-14-CLIPA"]["pretrained"][0]["interpolation"] == "bilinear"
    assert "RN50" not in rows
