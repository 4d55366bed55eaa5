"""Adapter files from anywhere: read whole and right, or refused by one error that names the file; nothing is executed."""

import json
import pickle
import re
import shutil
from dataclasses import asdict

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from anomalib_dpclip.adapter_files.adapter_file import FORMAT_VERSION, AdapterFile, Provenance
from anomalib_dpclip.adapter_files.read_and_write import read_adapters, write_adapters

every_kind = pytest.mark.parametrize("kind", ["safetensors", "pth", "ckpt"])


def some_adapters():
    torch.manual_seed(0)
    return AdapterFile(
        tensors={"det_proj.fc.weight": torch.randn(4, 6), "det_proj.grn.bias": torch.randn(4)},
        calibration={"map_range": torch.tensor([0.4, 0.6]), "is_set": torch.tensor(True)},
        provenance=Provenance(backbone="mini", fingerprint="0123456789abcdef", learned_from=["VisA/candle"], epochs=20),
    )


def lightning_checkpoint(adapters):
    state = {f"model.{name}": value for name, value in adapters.tensors.items()}
    state |= {f"post_processor.auxiliary_calibration.{name}": value for name, value in adapters.calibration.items()}
    others = {"post_processor.calibration.map_range": torch.tensor([0.0, 1.0]), "model.anchors": torch.zeros(4, 2)}
    provenance = asdict(adapters.provenance) | {"domain": "industrial"}
    return {"epoch": 19, "state_dict": state | others | {7: torch.zeros(1)}, "dpclip": provenance}


def write(adapters, folder, kind):
    path = folder / f"new folder, Größe 测试.{kind}"
    if kind == "ckpt":
        torch.save(lightning_checkpoint(adapters), path)
        return path
    return write_adapters(adapters, path)


def same(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(value, expected[name]) for name, value in found.items())


@every_kind
def test_what_is_written_is_read(tmp_path, kind):
    expected = some_adapters()
    found = read_adapters(str(write(expected, tmp_path, kind)))
    assert same(found.tensors, expected.tensors)
    if kind == "pth":  # the published format knows the epoch and nothing else
        assert (found.calibration, found.provenance) == ({}, Provenance(epochs=20))
    else:
        assert same(found.calibration, expected.calibration)
        assert found.provenance == expected.provenance


def test_a_file_is_readable_without_this_package_and_equal_adapters_are_equal_bytes(tmp_path):
    paths = [write_adapters(some_adapters(), tmp_path / "new" / f"{index}.safetensors") for index in range(5)]
    assert len({path.read_bytes() for path in paths}) == 1
    with safe_open(paths[0], "pt") as file:
        assert json.loads(file.metadata()["dpclip"])["learned_from"] == ["VisA/candle"]
        adapters, calibration = {"det_proj.fc.weight", "det_proj.grn.bias"}, {"calibration.map_range", "calibration.is_set"}
        assert set(file.keys()) == adapters | calibration
    paths[0].write_bytes(paths[1].read_bytes().replace(b"candle", b"handle"))
    refused(paths[0], "is damaged: its contents are not those it was written with")


def test_a_missing_file(tmp_path):
    path = tmp_path / "adapters.pth"
    with pytest.raises(FileNotFoundError, match=f"there is no adapter file {path}"):
        read_adapters(path)
    path.mkdir()
    with pytest.raises(FileNotFoundError, match=f"{path} is a folder: give the adapter file in it"):
        read_adapters(path)


def refused(path, message=""):
    with pytest.raises(ValueError, match=f"(?s){re.escape(str(path))}.*{message}"):
        read_adapters(path)


@every_kind
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bits_missing_ends_and_any_bytes(tmp_path_factory, kind, data):
    folder, expected = tmp_path_factory.mktemp("damaged"), some_adapters()
    path = write(expected, folder, kind)
    content = bytearray(path.read_bytes())
    if cut := data.draw(st.one_of(st.none(), st.integers(1, len(content)))):
        content = content[:-cut] if data.draw(st.booleans()) else data.draw(st.binary(max_size=300))
    for bit in [] if cut else data.draw(st.lists(st.integers(0, 8 * len(content) - 1), min_size=1, max_size=3)):
        content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    try:
        found = read_adapters(path)
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017  either outcome is right
    else:
        assert not cut
        assert same(found.tensors, expected.tensors)
        assert kind == "pth" or same(found.calibration, expected.calibration)
        assert found.provenance.learned_from == ([] if kind == "pth" else ["VisA/candle"])
    shutil.rmtree(folder)


class Bomb:
    """Pickled, it opens a file for writing as soon as it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


@every_kind
@pytest.mark.parametrize("where", ["alone", "beside the adapters", "not zipped"])
def test_code_is_refused_and_not_run(tmp_path, kind, where):
    path, marker = tmp_path / f"adapters.{kind}", tmp_path / "was here"
    bomb = Bomb(marker)
    content = bomb if where == "alone" else lightning_checkpoint(some_adapters()) | {"image_adapter": {}, "more": bomb}
    if where == "not zipped":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path)
    refused(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "content", [[], torch.zeros(2), "text", {}, {"state_dict": {"model.visual": torch.zeros(1)}}, {"image_adapter": 3}], ids=str
)
def test_checkpoints_of_something_else(tmp_path, content):
    torch.save(content, tmp_path / "adapters.pth")
    refused(tmp_path / "adapters.pth", "is no (DP-CLIP )?checkpoint")


def safetensors_with(tmp_path, metadata):
    save_file(some_adapters().tensors, tmp_path / "adapters.safetensors", metadata)
    return tmp_path / "adapters.safetensors"


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}])
def test_safetensors_without_provenance(tmp_path, metadata):
    refused(safetensors_with(tmp_path, metadata), "holds no DP-CLIP adapters")
    for text in ("", "{", "[" * 100_000, '{"epochs": ' + "9" * 5000 + "}"):
        refused(safetensors_with(tmp_path, {"dpclip": text}), "its provenance cannot be read")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "its provenance is not what this package writes"),
        ({"format_version": FORMAT_VERSION + 1}, "has format version 2, this package knows up to 1: upgrade"),
        ({"format_version": "new"}, "has format version new"),
        ({"epochs": "20"}, "wrong 'epochs'"),
        ({"architecture": []}, "wrong 'architecture'"),
        ({"backbone": None}, "wrong 'backbone'"),
        ({"learned_from": "VisA"}, "wrong 'learned_from'"),
        ({"epochs": 3, "format_version": 1, "something new": [1]}, None),  # of a later minor version
    ],
)
def test_provenance_of_another_kind(tmp_path, values, message):
    path = tmp_path / "adapters.ckpt"
    torch.save(lightning_checkpoint(some_adapters()) | {"dpclip": values}, path)
    if message is None:
        assert read_adapters(path).provenance == Provenance(epochs=3)
    else:
        refused(path, message)
        refused(safetensors_with(tmp_path, {"dpclip": json.dumps(values)}), message)
