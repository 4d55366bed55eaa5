import hashlib
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from tests.data.golden.make_golden import GOLDEN
from tests.paths import DATA, ROOT

from anomalib_dpclip.adapter_files.adapter_file import AdapterFile, Provenance
from anomalib_dpclip.adapter_files.command import adapters
from anomalib_dpclip.adapter_files.read_and_write import read_adapters, write_adapters
from anomalib_dpclip.clip.preprocessing import OPENAI
from anomalib_dpclip.scorers.fusion import Fusion, Usual
from anomalib_dpclip.scorers.memory_scorer import MemoryState, TokenMemory

PUBLISHED = DATA / "published_checkpoint.pth"


def tensors_of(path):
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)


def shown(capsys):
    """Printed values by their names."""
    return {line[:16].rstrip(): line[17:] for line in capsys.readouterr().out.splitlines()}


@pytest.fixture
def ours(tmp_path):
    provenance = Provenance(
        backbone="ViT-L-14-336",
        pretrained="openai",
        fingerprint="0123abcd",
        learned_from=["VisA/candle", "MVTecAD/cable", "MVTecAD/bottle"],
        epochs=20,
        versions={"torch": "2.10.0"},
    )
    content = AdapterFile({"det_proj.fc.weight": torch.ones(2, 3)}, {"map_range": torch.tensor([0.1, 0.9])}, provenance)
    return write_adapters(content, tmp_path / "ours.safetensors")


def test_shows_where_adapters_come_from(ours, capsys):
    adapters(ours)
    values = shown(capsys)
    assert values["backbone"] == "ViT-L-14-336"
    assert values["CLIP weights"] == "openai, fingerprint 0123abcd"
    assert values["learned from"] == "MVTecAD (bottle, cable); VisA (candle)"
    assert values["epochs"] == "20"
    assert values["versions"] == 'torch "2.10.0"'
    assert values["adapters"].startswith("1 tensors, 6 values, digest ")
    assert values["calibration"] == "of the images learned from"
    assert values["sha256"] == hashlib.sha256(ours.read_bytes()).hexdigest()


def test_the_mini_has_weights_of_its_own(capsys):
    """Though its argument `pretrained` says "openai", as every other backbone's does by default."""
    adapters(GOLDEN / "adapters-v1.safetensors")
    assert shown(capsys)["CLIP weights"].startswith("come with the package, fingerprint ")


def test_says_what_a_published_file_does_not_tell(capsys):
    adapters(PUBLISHED)
    values = shown(capsys)
    assert values["backbone"] == values["learned from"] == values["versions"] == "unknown"
    assert values["calibration"] == "none"


def test_converts_the_published_format_there_and_back(tmp_path):
    adapters(PUBLISHED, tmp_path / "a.safetensors")
    adapters(tmp_path / "a.safetensors", tmp_path / "b.pth")
    original = torch.load(PUBLISHED, weights_only=True)
    back = torch.load(tmp_path / "b.pth", weights_only=True)
    assert back["epoch"] == original["epoch"]
    for found in (tensors_of(tmp_path / "a.safetensors"), back["image_adapter"]):
        assert found.keys() == original["image_adapter"].keys()
        assert all(torch.equal(found[name], value) for name, value in original["image_adapter"].items())


def test_does_not_overwrite(ours):
    before = ours.read_bytes()
    with pytest.raises(FileExistsError, match="is there already"):
        adapters(PUBLISHED, ours)
    assert ours.read_bytes() == before


def test_refuses_other_formats(tmp_path):
    with pytest.raises(ValueError, match=r"a\.bin: adapters are written as \.safetensors, or \.pth"):
        adapters(PUBLISHED, tmp_path / "a.bin")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("foreign", [{"other.weight": torch.ones(1)}, {"det_proj.fc.weight": 1.0}])
def test_refuses_what_is_no_adapter(tmp_path, foreign):
    torch.save({"epoch": 1, "image_adapter": foreign}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth holds more than adapters"):
        adapters(tmp_path / "a.pth", tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()


FORGED = "\x1b[2Kx\nsha256           0000\r\u202e"


def checkpoint(path, name="det_proj.fc.weight", value=None, **provenance):
    """A Lightning checkpoint as far as it is read."""
    torch.save({"state_dict": {f"model.{name}": torch.ones(2, 3) if value is None else value}, "dpclip": provenance}, path)
    return path


@pytest.mark.parametrize(
    "provenance",
    [
        *({name: FORGED} for name in ("backbone", "pretrained", "fingerprint")),
        {"learned_from": [f"VisA/{FORGED}", FORGED]},
        *({name: {FORGED: FORGED}} for name in ("architecture", "hyper_parameters", "versions")),
    ],
)
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_nothing_in_a_file_forges_a_line(tmp_path, capsys, provenance, suffix):
    path = checkpoint(tmp_path / "a.ckpt", **provenance)
    if suffix == ".safetensors":
        path = tmp_path / "a.safetensors"
        write_adapters(AdapterFile({"det_proj.fc.weight": torch.ones(2, 3)}, {}, Provenance(**provenance)), path)
    adapters(path)
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 12
    assert out.replace("\n", "").isprintable()
    assert "\\n" in out


def test_a_file_name_forges_no_line(tmp_path, capsys):
    adapters(checkpoint(tmp_path / "a\nsha256           0.ckpt"))
    assert len(capsys.readouterr().out.splitlines()) == 12


def nested_lists(depth, width):
    value = "x"
    for _ in range(depth):
        value = [value] * width
    return value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hyper_parameters", {"learning_rate": torch.tensor(1.0)}),
        ("hyper_parameters", {"a": {1: 2}}),
        ("architecture", {1: 2}),
        ("versions", {"a": b"x"}),
        ("learned_from", [1]),
        ("hyper_parameters", {"deep": nested_lists(100, 1)}),
        ("hyper_parameters", {"wide": nested_lists(3, 1000)}),
    ],
)
def test_provenance_that_is_no_plain_data_is_named(tmp_path, name, value):
    path = checkpoint(tmp_path / "a.ckpt", **{name: value})
    with pytest.raises(ValueError, match=rf"a\.ckpt: its provenance has a wrong '{name}'"):
        adapters(path)


@pytest.mark.parametrize(
    "tensors",
    [
        {0: torch.ones(1)},
        {"det_proj.fc.weight": torch.nested.nested_tensor([torch.ones(1), torch.ones(2)], layout=torch.strided)},
        {"det_proj.fc.weight": torch.ones(2).to_sparse()},
    ],
)
def test_what_is_no_named_dense_tensor_is_refused(tmp_path, tensors):
    torch.save({"epoch": 1, "image_adapter": tensors}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth holds"):
        adapters(tmp_path / "a.pth", tmp_path / "b.safetensors")


def test_a_tensor_larger_than_its_file_is_refused(tmp_path):
    huge = torch.ones(1).expand(2**20, 2**20)  # 4 TB when it is written out
    torch.save({"epoch": 1, "image_adapter": {"det_proj.fc.weight": huge}}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth claims .* more than it is long"):
        adapters(tmp_path / "a.pth", tmp_path / "b.safetensors")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path, method):
    with (
        zipfile.ZipFile(PUBLISHED) as stored,
        zipfile.ZipFile(tmp_path / "a.pth", "w", method) as packed,
    ):
        for entry in stored.namelist():
            packed.writestr(entry, stored.read(entry))
    content = bytearray((tmp_path / "a.pth").read_bytes())
    for damaged in (content, content[:300] + bytes(100) + content[400:]):
        (tmp_path / "a.pth").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.pth cannot be read safely .*compressed"):
            adapters(tmp_path / "a.pth")


def test_nothing_is_waited_for_that_a_file_does_not_need():
    """anomalib takes seconds to import, and so does what it stands on."""
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
    content = read_adapters(GOLDEN / "adapters-v1.safetensors")
    known = replace(content.provenance, arguments={"tiles": 1}, preprocessing=OPENAI.as_dict(), calibration_basis="of some")
    adapters(write_adapters(replace(content, provenance=known), tmp_path / "a.safetensors"))
    lines = capsys.readouterr().out.splitlines()
    assert [line[:17] for line in lines[1:]] == [line[:17] for line in sample.splitlines()[1:]]
    for name in ("backbone", "CLIP weights", "images"):
        assert next(line for line in lines if line.startswith(name)) in sample, name


def test_good_photos_that_a_checkpoint_remembers(tmp_path, capsys):
    nothing = Usual(torch.zeros(()), torch.ones(()))
    memory = TokenMemory([torch.ones(5, 3), torch.ones(7, 3)], torch.ones(2), torch.ones(9, 6), torch.ones(2), photos=4)
    stored = MemoryState(memory, Fusion(nothing, nothing, nothing, 0.3), torch.zeros(2, 4)).state_dict()
    path = checkpoint(tmp_path / "a.ckpt")
    content = torch.load(path, weights_only=True)
    content["state_dict"] |= {f"scorer_state.{name}": value for name, value in stored.items()}
    torch.save(content, path)
    adapters(path)
    expected = "4 of a target: tokens of 3 layers, 5 of 3 values, 7 of 3 values, 9 of 6 values"
    assert shown(capsys)["photos"] == expected
