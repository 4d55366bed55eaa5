"""Downloads of CLIP's weights that cannot succeed, from a server on this machine: one try each, and a clear message."""

import socket
import threading

import pytest

from anomalib_dpclip.clip.loading import load_clip
from anomalib_dpclip.files.downloads import DOWNLOAD_TIMEOUT


def refuse(connection):
    connection.close()


def stall(connection):
    connection.recv(4096)
    connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 1000000\r\n\r\nthe first bytes")
    connection.recv(1)  # and no more, until the client has had enough


@pytest.fixture
def server(request):
    """Address of a server on this machine that treats every connection as told, and the connections it has had."""
    connections = []
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(None)

    def serve():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:  # closed below
                return
            connections.append(connection)
            connection.settimeout(10)  # not the default, which the client sets
            with connection:
                request.param(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}", connections
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(10)


@pytest.mark.parametrize("server", [stall, refuse], indirect=True)
def test_a_download_that_stalls_or_breaks_off(monkeypatch, tmp_path, server):
    assert DOWNLOAD_TIMEOUT == 30
    monkeypatch.setattr("anomalib_dpclip.files.downloads.DOWNLOAD_TIMEOUT", 0.5)
    address, connections = server
    monkeypatch.setattr("open_clip.pretrained.get_pretrained_cfg", lambda *names: {"url": f"{address}/clip.pt"})
    monkeypatch.setenv("HOME", str(tmp_path))  # open_clip's cache
    with pytest.raises(
        FileNotFoundError, match=r"'openai' of ViT-B-32 .* could not be downloaded.*--model.pretrained /path/to"
    ):
        load_clip("ViT-B-32", "openai")
    assert len(connections) == 1, "it gave up"


@pytest.mark.parametrize("server", [refuse], indirect=True)
def test_a_hub_that_does_not_answer_is_not_asked_again(monkeypatch, tmp_path, server):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    address, connections = server
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"could not be downloaded.*--model.pretrained /path/to.*backbone mini"):
        load_clip("ViT-B-32", "laion2b_s34b_b79k")
    assert len(connections) == 1, "the hub's client would have tried for a minute"
