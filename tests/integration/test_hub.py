"""Adapters from the Hugging Face hub and to it, with a stand-in for the hub on this machine."""

import logging
import pickle

import pytest
import torch
from tests.data.golden.make_golden import GOLDEN
from tests.hub import TOKEN, running_hub

from anomalib_dpclip import DPCLIP
from anomalib_dpclip.adapter_files.hub import DEFAULT_NAME, local_file
from anomalib_dpclip.adapter_files.read_and_write import read_adapters
from anomalib_dpclip.cli import main
from anomalib_dpclip.model.from_file import model_from_file

ADAPTERS = GOLDEN / "adapters-v1.safetensors"
TEMPLATE = "/{repo_id}/resolve/{revision}/{filename}"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The stand-in, in the place of the hub, with a cache of its own."""
    with running_hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", hub.address + TEMPLATE)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


def test_a_model_from_the_hub(hub, caplog):
    commit = hub.commit("someone/weave", {DEFAULT_NAME: ADAPTERS.read_bytes()})
    with caplog.at_level(logging.INFO, logger="anomalib_dpclip"):
        model = DPCLIP(weights="hf://someone/weave", visualizer=False)
    assert model.provenance == DPCLIP(weights=ADAPTERS, visualizer=False).provenance
    assert f"name it hf://someone/weave@{commit} to get the same again" in caplog.text
    assert model_from_file("hf://someone/weave").model.tap_layers == (3, 6)


def test_a_revision_stays_what_it_is_and_is_fetched_once(hub, caplog):
    commit = hub.commit("someone/weave", {DEFAULT_NAME: ADAPTERS.read_bytes()})
    hub.commit("someone/weave", {DEFAULT_NAME: b"other"})
    pinned = f"hf://someone/weave@{commit}"
    assert local_file(pinned).read_bytes() == ADAPTERS.read_bytes()
    assert local_file("hf://someone/weave").read_bytes() == b"other"
    asked = len(hub.requests)
    with caplog.at_level(logging.INFO, logger="anomalib_dpclip"):
        assert local_file(pinned).read_bytes() == ADAPTERS.read_bytes()
    assert len(hub.requests) == asked
    assert pinned not in caplog.text


def test_offline_with_and_without_a_cached_file(hub, monkeypatch):
    commit = hub.commit("someone/weave", {DEFAULT_NAME: ADAPTERS.read_bytes()})
    local_file("hf://someone/weave")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for address in ("hf://someone/weave", f"hf://someone/weave@{commit}"):
        assert local_file(address).read_bytes() == ADAPTERS.read_bytes()
    message = r"^hf://someone/else/adapters\.safetensors: it is not on this machine and cannot be fetched \(.*give the file"
    with pytest.raises(FileNotFoundError, match=message):
        DPCLIP(weights="hf://someone/else")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://someone/nothing", "there is no model someone/nothing on the Hugging Face hub, or it is private"),
        ("hf://someone/weave/no.safetensors", r"someone/weave has no file no\.safetensors"),
        ("hf://someone/weave@v7", "someone/weave has no revision v7"),
    ],
)
def test_what_is_not_there(hub, address, message):
    hub.commit("someone/weave", {DEFAULT_NAME: b""})
    with pytest.raises(FileNotFoundError, match=message):
        local_file(address)


@pytest.mark.parametrize("name", ["adapters.pth", "model.ckpt", "adapters.bin"])
def test_pickles_are_not_even_fetched(hub, name):
    hub.commit("someone/weave", {name: b""})
    with pytest.raises(
        ValueError, match=rf"someone/weave/{name}: only \.safetensors files are taken from the hub, others are pickles"
    ):
        DPCLIP(weights=f"hf://someone/weave/{name}")
    assert hub.requests == []


def test_a_pickle_by_another_name(hub, tmp_path):
    torch.save({"image_adapter": {}}, tmp_path / "zip.pth")
    for content in ((tmp_path / "zip.pth").read_bytes(), pickle.dumps({"image_adapter": {}})):
        hub.commit("someone/weave", {DEFAULT_NAME: content})
        with pytest.raises(ValueError, match=r"adapters\.safetensors is a pickle, whatever it is called"):
            DPCLIP(weights="hf://someone/weave")


@pytest.mark.parametrize("address", ["hf://name", "hf://owner/name@", "hf://owner/name@a/", "hf:///name"])
def test_addresses_that_name_nothing(address):
    with pytest.raises(ValueError, match=r"names nothing on the Hugging Face hub: write hf://owner/name"):
        DPCLIP(weights=address)


def test_pushed_adapters_come_back(hub, capsys):
    main(["adapters", str(GOLDEN / "checkpoint-v1.ckpt"), "--push", "someone/weave"])
    address = capsys.readouterr().out.splitlines()[-1].split()[-1]
    assert address == f"hf://someone/weave@{hub.repositories['someone/weave'][-1][0]}"
    assert hub.private == {"someone/weave"}
    _, files = hub.files("someone/weave", "main")
    assert set(files) == {DEFAULT_NAME, "README.md"}
    assert "--model.weights hf://someone/weave " in files["README.md"].decode()
    expected = read_adapters(GOLDEN / "checkpoint-v1.ckpt").tensors
    found = read_adapters(address).tensors
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    main(["adapters", address])
    assert "backbone         mini\n" in capsys.readouterr().out
    main(["adapters", str(ADAPTERS), "--push", "someone/weave"])  # a second time: another commit
    assert len(hub.repositories["someone/weave"]) == 2


def test_a_push_that_is_not_allowed(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(SystemExit, match="the Hugging Face hub does not take someone/weave: `hf auth login` first"):
        main(["adapters", str(ADAPTERS), "--push", "someone/weave"])
    with pytest.raises(SystemExit, match="'weave' is no repository of the Hugging Face hub: write owner/name"):
        main(["adapters", str(ADAPTERS), "--push", "weave"])
