"""What cannot work says so in one line that names the cause and the remedy."""

import shutil
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import anomalib.data.datamodules.image.mvtecad
import pytest
from anomalib.data import MVTecAD
from tests.integration import miniature_sets

from anomalib_dpclip import JSONLines
from anomalib_dpclip.cli import main
from anomalib_dpclip.data.labelled_sets import read_labelled_set


def test_on_anomalib_s_command_line_the_sentence_stands_last(tmp_path):
    model = ("--model", "DPCLIP", "--model.weights", "gone.safetensors")
    command = [Path(sys.executable).with_name("anomalib"), "predict", "--data", tmp_path, *model]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert process.returncode
    assert process.stderr.splitlines()[-1] == "anomalib: error: there is no adapter file gone.safetensors"
    assert "Traceback" not in process.stdout + process.stderr


def test_missing_masks_are_named(tmp_path):
    root = tmp_path / "MVTecAD"
    miniature_sets.mvtec(root)
    shutil.rmtree(root / "bottle" / "ground_truth")
    with pytest.raises(SystemExit, match=r"category bottle of MVTecAD in .*MVTecAD is not as anomalib expects it.*a mask"):
        main(["metadata", str(root), "--source", "MVTecAD", "--output", str(tmp_path / "m.jsonl")])
    with pytest.raises(ValueError, match=r"the auxiliary set 'MVTecAD', category 'bottle' in .*is not as anomalib expects it"):
        read_labelled_set("MVTecAD", root)


def test_a_missing_metadata_file_or_root_comes_before_the_auxiliary_set(make_engine, make_model, tmp_path):
    model = make_model(auxiliary="VisA", auxiliary_root=str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"no metadata file .*nothing\.jsonl"):
        make_engine().train(model, datamodule=JSONLines(tmp_path / "nothing.jsonl", tmp_path))
    (tmp_path / "some.jsonl").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"no folder .*missing"):
        make_engine().train(model, datamodule=JSONLines(tmp_path / "some.jsonl", tmp_path / "missing"))


@pytest.mark.parametrize("step", ["train", "test"])
def test_a_target_that_cannot_be_downloaded_is_named(make_engine, make_model, tmp_path, monkeypatch, step):
    def offline(*_args, **_kwargs):
        raise URLError("Name or service not known")

    monkeypatch.setattr(anomalib.data.datamodules.image.mvtecad, "download_and_extract", offline)
    with pytest.raises(FileNotFoundError, match=r"the data set MVTecAD is not in .*nowhere and .*not known.*--data\.root"):
        getattr(make_engine(), step)(make_model(), datamodule=MVTecAD(root=tmp_path / "nowhere"))
