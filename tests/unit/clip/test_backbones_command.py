import json

from anomalib_dpclip import cli
from anomalib_dpclip.clip import command


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
