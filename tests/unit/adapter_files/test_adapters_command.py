"""The command `dpclip adapters`: what it shows, converts and refuses, and the card that says what the provenance says."""

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import replace
from functools import reduce

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tests.data.golden.make_golden import GOLDEN
from tests.paths import DATA, ROOT

from anomalib_dpclip.adapter_files.adapter_file import AdapterFile, Provenance
from anomalib_dpclip.adapter_files.card import model_card
from anomalib_dpclip.adapter_files.command import adapters
from anomalib_dpclip.adapter_files.read_and_write import read_adapters, write_adapters
from anomalib_dpclip.clip.pretraining import OPENAI
from anomalib_dpclip.scorers.fusion import Fusion
from anomalib_dpclip.scorers.memory_scorer import MemoryState, TokenMemory

PUBLISHED = DATA / "published_checkpoint.pth"
ADAPTERS = GOLDEN / "adapters-v1.safetensors"


def shown(capsys):
    return {line[:16].rstrip(): line[17:] for line in capsys.readouterr().out.splitlines()}


def test_shows_where_adapters_come_from(tmp_path, capsys):
    learned_from = ["VisA/candle", "MVTecAD/cable", "MVTecAD/bottle"]
    names = {"backbone": "ViT-L-14-336", "pretrained": "openai", "fingerprint": "0123abcd", "versions": {"torch": "2.10.0"}}
    known = Provenance(**names, learned_from=learned_from, epochs=20, text_weights={"own": {"1": 0.5, "4": 0.2}})
    content = AdapterFile({"det_proj.fc.weight": torch.ones(2, 3)}, {"map_range": torch.tensor([0.1, 0.9])}, known)
    path = write_adapters(content, tmp_path / "ours.safetensors")
    adapters(path)
    values = shown(capsys)
    assert values.pop("adapters").startswith("1 tensors, 6 values, digest ")
    expected = {
        "backbone": "ViT-L-14-336",
        "CLIP weights": "openai, fingerprint 0123abcd",
        "learned from": "MVTecAD (bottle, cable); VisA (candle)",
        "epochs": "20",
        "versions": 'torch "2.10.0"',
        "calibration": "of the images learned from",
        "text weights": "0.5 beside 1, 0.2 beside 4 good photos, learned from the auxiliary set",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    assert expected.items() <= values.items()


def test_converts_the_published_format_which_says_little_there_and_back(tmp_path, capsys):
    ours = tmp_path / "a.safetensors"
    adapters(PUBLISHED, ours)
    values = shown(capsys)
    assert values["backbone"] == values["learned from"] == values["versions"] == "unknown"
    assert values["calibration"] == "none"
    adapters(ours, tmp_path / "b.pth")
    original, back = (torch.load(path, weights_only=True) for path in (PUBLISHED, tmp_path / "b.pth"))
    assert back["epoch"] == original["epoch"]
    for found in (load_file(ours), back["image_adapter"]):
        assert found.keys() == original["image_adapter"].keys()
        assert all(torch.equal(found[name], value) for name, value in original["image_adapter"].items())
    before = ours.read_bytes()
    with pytest.raises(FileExistsError, match="is there already"):
        adapters(ADAPTERS, ours)
    assert ours.read_bytes() == before
    with pytest.raises(ValueError, match=r"a\.bin: adapters are written as \.safetensors, or \.pth"):
        adapters(PUBLISHED, tmp_path / "new" / "a.bin")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "tensors",
    [
        {"other.weight": torch.ones(1)},
        {"det_proj.fc.weight": 1.0},
        {0: torch.ones(1)},
        {"det_proj.fc.weight": torch.nested.nested_tensor([torch.ones(1), torch.ones(2)], layout=torch.strided)},
        {"det_proj.fc.weight": torch.ones(2).to_sparse()},
        {"det_proj.fc.weight": torch.ones(1).expand(2**20, 2**20)},  # 4 TB when it is written out
    ],
    ids=["name", "number", "no name", "nested", "sparse", "huge"],
)
def test_what_is_no_adapter_is_refused(tmp_path, tensors):
    torch.save({"epoch": 1, "image_adapter": tensors}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth (holds more than adapters|holds|claims .* more than it is long)"):
        adapters(tmp_path / "a.pth", tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()


FORGED = "\x1b[2Kx\nsha256           0000\r\u202e"


def checkpoint(path, state=None, **provenance):
    """A Lightning checkpoint as far as it is read."""
    torch.save({"state_dict": {"model.det_proj.fc.weight": torch.ones(2, 3)} | (state or {}), "dpclip": provenance}, path)
    return path


@pytest.mark.parametrize(
    "provenance",
    [
        {"backbone": FORGED, "pretrained": FORGED, "fingerprint": FORGED},
        {"learned_from": [f"VisA/{FORGED}", FORGED]},
        {key: {FORGED: FORGED} for key in ("architecture", "hyper_parameters", "versions")},
    ],
)
def test_nothing_in_a_file_or_its_name_forges_a_line(tmp_path, capsys, provenance):
    ours = AdapterFile({"det_proj.fc.weight": torch.ones(2, 3)}, {}, Provenance(**provenance))
    write_adapters(ours, tmp_path / "a.safetensors")
    for path in (checkpoint(tmp_path / "a\nsha256           0.ckpt", **provenance), tmp_path / "a.safetensors"):
        adapters(path)
        out = capsys.readouterr().out
        assert len(out.splitlines()) == 12
        assert out.replace("\n", "").isprintable()
        assert "\\n" in out


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hyper_parameters", {"learning_rate": torch.tensor(1.0)}),
        ("architecture", {1: 2}),
        ("hyper_parameters", {"deep": reduce(lambda inner, _: [inner], range(100), "x")}),
        ("hyper_parameters", {"wide": [[["x"] * 1000] * 1000] * 1000}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_provenance_that_is_no_plain_data_is_named(tmp_path, name, value):
    with pytest.raises(ValueError, match=rf"a\.ckpt: its provenance has a wrong '{name}'"):
        adapters(checkpoint(tmp_path / "a.ckpt", **{name: value}))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path, method):
    with zipfile.ZipFile(PUBLISHED) as stored, zipfile.ZipFile(tmp_path / "a.pth", "w", method) as packed:
        for entry in stored.namelist():
            packed.writestr(entry, stored.read(entry))
    with pytest.raises(ValueError, match=r"a\.pth cannot be read safely .*compressed"):
        adapters(tmp_path / "a.pth")


def test_nothing_is_waited_for_that_a_file_does_not_need():
    code = f"""
import sys
from anomalib_dpclip.cli import main
main(["adapters", {str(GOLDEN / "checkpoint-v1.ckpt")!r}])
assert not {{"anomalib", "lightning", "timm", "open_clip", "torchvision", "pandas"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_the_page_shows_what_it_prints(tmp_path, capsys):
    text = (ROOT / "docs" / "adapter-files.md").read_text(encoding="utf-8")
    sample = text.partition("```\nfile  ")[2].partition("```")[0]
    content = read_adapters(ADAPTERS)
    known = replace(content.provenance, arguments={"tiles": 1}, preprocessing=OPENAI.as_dict(), calibration_basis="of some")
    adapters(write_adapters(replace(content, provenance=known), tmp_path / "a.safetensors"))
    lines = capsys.readouterr().out.splitlines()
    assert [line[:17] for line in lines[1:]] == [line[:17] for line in sample.splitlines()[1:]]
    for name in ("backbone", "CLIP weights", "images"):  # the mini's weights come with the package
        assert next(line for line in lines if line.startswith(name)) in sample, name


def test_good_photos_that_a_checkpoint_remembers(tmp_path, capsys):
    nothing = torch.tensor([0.0, 1.0])
    memory = TokenMemory([torch.ones(5, 3), torch.ones(7, 3)], torch.ones(2), photos=4)
    stored = MemoryState(memory, Fusion(nothing, nothing, nothing, 0.3), torch.zeros(2, 4)).state_dict()
    path = checkpoint(tmp_path / "a.ckpt", {f"scorer_state.{name}": value for name, value in stored.items()})
    adapters(path)
    assert shown(capsys)["photos"] == "4 of a target: tokens of 2 layers, 5 of 3 values, 7 of 3 values"


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
        model_card(read_adapters(PUBLISHED), "0" * 64, "a.pth")


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
