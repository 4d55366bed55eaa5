from dataclasses import replace

import pytest
import yaml
from tests.data.golden.make_golden import GOLDEN
from tests.paths import DATA

from anomalib_dpclip.adapter_files.card import model_card
from anomalib_dpclip.adapter_files.command import adapters
from anomalib_dpclip.adapter_files.read_and_write import read_adapters

ADAPTERS = GOLDEN / "adapters-v1.safetensors"
COLUMNS = "label,model,data_set,category,seed,image_AUROC,image_AP,pixel_AUROC,pixel_AP,pixel_AUPRO,status"


@pytest.fixture
def content():
    return read_adapters(ADAPTERS)


def header_of(card):
    _, header, _ = card.split("---\n", 2)
    return yaml.safe_load(header)


def test_what_it_says(content):
    card = model_card(content, "0123" * 16, "hf://someone/weave")
    header = header_of(card)
    assert (header["license"], header["library_name"]) == ("apache-2.0", "anomalib")
    assert header["tags"] == ["anomaly-detection", "zero-shot", "dp-clip", "mini"]
    for line in (
        "# DP-CLIP adapters for mini, learned from Surfaces\n",
        "anomalib predict --model DPCLIP --model.weights hf://someone/weave --model.class_name 'metal nut'",
        "| Surfaces | apache-2.0 | brick |",
        "| sha256 | " + "0123" * 16,
        "| tap_layers | [3, 6] |",
        f"| epochs | {content.provenance.epochs} |",
        f"| CLIP weights | come with the package, fingerprint {content.provenance.fingerprint} |",
        "## Measured\n\nNot measured.",
    ):
        assert line in card


@pytest.mark.parametrize(
    ("learned_from", "licence", "line"),
    [
        (["Visa/candle", "Visa/pcb1"], "cc-by-4.0", "| Visa | cc-by-4.0 | candle, pcb1 |"),
        (["Visa/candle", "MVTecAD/cable"], "cc-by-nc-sa-4.0", "| MVTecAD | cc-by-nc-sa-4.0 | cable |"),
        (["Visa/candle", "mine/nut"], "other", "| mine | not known here: ask its authors | nut |"),
    ],
)
def test_licences(content, learned_from, licence, line):
    changed = replace(content, provenance=replace(content.provenance, learned_from=learned_from))
    card = model_card(changed, "0" * 64, "a.safetensors")
    assert header_of(card)["license"] == licence
    assert line in card


def test_measured_by_a_benchmark(content, tmp_path):
    rows = [
        "A,DPCLIP,Surfaces,weave,1,0.90,0.8,0.7,0.5,,ok",
        "A,DPCLIP,Surfaces,mesh,1,0.80,0.8,0.7,0.5,,ok",
        "A,DPCLIP,Surfaces,weave,2,0.97,0.8,0.7,0.5,,ok",
        "A,DPCLIP,Surfaces,mesh,2,0.93,0.8,0.7,0.5,,ok",
        "A,DPCLIP,Surfaces,brick,1,1.0,1.0,1.0,1.0,,leak",
        "W,WinCLIP,Surfaces,weave,1,0.1,0.1,0.1,0.1,,ok",
    ]
    csv = tmp_path / "rows.csv"
    for text, message in (("a,b\n1,2\n", "it has no column label"), (COLUMNS + "\n", "no row that measured")):
        csv.write_text(text)
        with pytest.raises(ValueError, match=message):
            model_card(content, "0" * 64, "a.safetensors", csv)
    csv.write_text("\n".join(["# command: dpclip benchmark", "# commit: 0123", COLUMNS, *rows]) + "\n")
    card = model_card(content, "0" * 64, "a.safetensors", csv)
    # 85 and 95 of the two seeds.
    assert "| A | Surfaces | 2 | 2 | 90.0 ± 7.1 | 80.0 ± 0.0 | 70.0 ± 0.0 | 50.0 ± 0.0 | n/a |" in card
    assert "- commit: 0123" in card
    assert "WinCLIP" not in card


def test_adapters_that_do_not_say_where_they_come_from():
    with pytest.raises(ValueError, match="do not say which backbone they belong to and what they learned from"):
        model_card(read_adapters(DATA / "published_checkpoint.pth"), "0" * 64, "a.pth")


def test_the_command_writes_it_beside_the_file(tmp_path, capsys):
    file = tmp_path / "mine.safetensors"
    file.write_bytes(ADAPTERS.read_bytes())
    adapters(file, card=True)
    assert capsys.readouterr().out.splitlines()[-1].split() == ["card", str(tmp_path / "mine.md")]
    assert (tmp_path / "mine.md").read_text().startswith("---\n")
    with pytest.raises(FileExistsError, match=r"mine\.md is there already"):
        adapters(file, card=True)
    adapters(GOLDEN / "checkpoint-v1.ckpt", to=tmp_path / "new.safetensors", card=True)
    assert f"--model.weights {tmp_path / 'new.safetensors'} " in (tmp_path / "new.md").read_text()
