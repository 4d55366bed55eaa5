"""Exported files that are not, or no longer, of this package; arithmetic of moved thresholds. No model is exported here."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from anomalib_dpclip.deploy.metadata import DeployedClass, Metadata, metadata_from
from anomalib_dpclip.deploy.threshold_command import raw_value, threshold
from anomalib_dpclip.post_processing.scale import Scale, piecewise_linear, unpacked

KNOWN = Metadata("mini", "openai", "0123", ["VisA/candle"], "industrial", True, [DeployedClass("bolt", [0.5] * 14, "nothing")])


def onnx_file(path, **metadata):
    """The smallest ONNX model there is, with some metadata."""
    onnx = pytest.importorskip("onnx")
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "ab"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["a"], ["b"])], "g", values[:1], values[1:])
    model = onnx.helper.make_model(graph)
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


def openvino_file(path):
    openvino = pytest.importorskip("openvino")
    parameter = openvino.opset13.parameter([1])
    openvino.save_model(openvino.Model([openvino.opset13.relu(parameter)], [parameter]), path)
    return path


@pytest.mark.parametrize(("make", "name"), [(onnx_file, "other.onnx"), (openvino_file, "other.xml")])
def test_files_of_another_package_are_refused(tmp_path, make, name):
    path = make(tmp_path / name)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"{name} has no thresholds that could be moved: it was exported by another package"):
        threshold(path, image=0.4)
    assert path.read_bytes() == before


def test_a_file_is_shown_without_imports_that_take_seconds(tmp_path):
    onnx = pytest.importorskip("onnx")
    scale = Scale(*(torch.rand(size) for size in (2, 2, 5, 5, 1)))
    path = onnx_file(tmp_path / "a.onnx", dpclip=KNOWN.as_text())
    model = onnx.load(path)
    model.graph.initializer.append(onnx.numpy_helper.from_array(scale.packed()[None].numpy(), "scales"))
    onnx.save(model, path)
    code = f"""
import sys
from anomalib_dpclip.cli import main
main(["threshold", {str(path)!r}])
print({{"torch", "anomalib"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    *_, thresholds, basis, imported = done.stdout.splitlines()
    assert thresholds.split(maxsplit=1)[1] == f"image {scale.score_knots[2]:.4f}, pixel {scale.map_knots[2]:.4f} (raw)"
    assert (basis.split()[1], imported) == ("nothing", "set()")


def test_other_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no exported file .*absent\.onnx"):
        threshold(tmp_path / "absent.onnx")
    (tmp_path / "model.pt").touch()
    with pytest.raises(ValueError, match=r"model\.pt: thresholds are moved in \.onnx and \.xml files"):
        threshold(tmp_path / "model.pt")
    path = onnx_file(tmp_path / "a.onnx", dpclip=KNOWN.as_text())
    with pytest.raises(ValueError, match=r"a\.onnx: its thresholds are gone, another tool has rewritten the file"):
        threshold(path, image=0.4)
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(ValueError, match=r"a\.onnx is no ONNX file that can be read"):
        threshold(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", '{"format_version": 1, "classes": [5]}'])
def test_damaged_metadata_is_told(tmp_path, text):
    with pytest.raises(ValueError, match="cannot be read; the file is damaged"):
        metadata_from(text, tmp_path / "a.onnx")


def test_metadata_comes_back_as_it_was_written_and_nothing_in_it_forges_a_line(tmp_path):
    assert metadata_from(KNOWN.as_text(), tmp_path) == KNOWN
    newer = json.dumps(json.loads(KNOWN.as_text()) | {"format_version": 2, "more": 1})
    with pytest.raises(ValueError, match=r"a\.onnx was exported by a newer version of this package: upgrade"):
        metadata_from(newer, tmp_path / "a.onnx")
    forged = Metadata("a\nb", "", "", [], "industrial", True, [DeployedClass("x\x1b[2K", [0.5] * 14, "p\rq")])
    assert metadata_from(forged.as_text(), tmp_path).backbone == "a\\nb"
    assert metadata_from(forged.as_text(), tmp_path).classes[0].threshold_basis == "p\\rq"


def test_a_normalised_value_becomes_raw_again_and_a_scale_is_packed_and_unpacked():
    points = torch.tensor([-2.0, 0.1, 0.4, 0.8, 3.0])
    for value in (-1.5, 0.1, 0.25, 0.4, 0.79, 2.0):
        assert raw_value(piecewise_linear(torch.tensor(value), points).item(), points) == pytest.approx(value, abs=1e-5)
    scale = Scale(*(torch.rand(size) for size in (2, 2, 5, 5, 1)))
    for one, other in zip(unpacked(scale.packed()), scale, strict=True):
        np.testing.assert_array_equal(one, other)
