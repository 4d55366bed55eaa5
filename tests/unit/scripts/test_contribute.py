import pytest
import scripts.contribute as contributing
import torch
from tests.data.golden.make_golden import GOLDEN
from tests.paths import ROOT

from anomalib_dpclip.adapter_files.read_and_write import read_adapters

ROWS = """\
# command: dpclip benchmark
label,model,data_set,category,seed,image_AUROC,image_AP,pixel_AUROC,pixel_AP,pixel_AUPRO,status
DP-CLIP,DPCLIP,Surfaces,weave,111,0.9,0.8,0.7,0.6,0.5,ok
"""


def test_file_and_card(tmp_path, monkeypatch):
    asked = []

    def benchmark(config, out):
        asked.append(config)
        out.write_text(ROWS)
        out.with_suffix(".jobs").mkdir()
        (out.with_suffix(".jobs") / "key.safetensors").write_bytes((GOLDEN / "adapters-v1.safetensors").read_bytes())
        return 0

    monkeypatch.setattr(contributing, "benchmark", benchmark)
    file = contributing.contribute("Surfaces", tmp_path)
    configs = [ROOT / "configs" / "benchmark" / f"{name}.yaml" for name in contributing.CONFIGS.values()]
    assert all(path.is_file() for path in [ROOT / asked[0], *configs])
    expected = read_adapters(GOLDEN / "adapters-v1.safetensors")
    assert read_adapters(file).provenance == expected.provenance
    assert all(torch.equal(value, expected.tensors[name]) for name, value in read_adapters(file).tensors.items())
    assert "| DP-CLIP | Surfaces | 1 | 1 | 90.0 | 80.0 | 70.0 | 60.0 | 50.0 |" in (tmp_path / "Surfaces.md").read_text()


def test_what_was_not_tested_is_not_shared(tmp_path, monkeypatch):
    monkeypatch.setattr(contributing, "benchmark", lambda *arguments: 1)
    with pytest.raises(RuntimeError, match=r"Surfaces\.csv says why"):
        contributing.contribute("Surfaces", tmp_path)
    assert not list(tmp_path.iterdir())
