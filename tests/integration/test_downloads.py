"""Downloads of CLIP's weights that cannot succeed, from a server on this machine: one try each, and a clear message."""

import socketserver
import threading

import pytest

from anomalib_dpclip.clip.loading import load_clip


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

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            connections.append(self.client_address)
            self.request.settimeout(10)  # not the default, which the client sets
            request.param(self.request)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_address[1]}", connections
        listening.shutdown()


@pytest.mark.parametrize("server", [stall, refuse], indirect=True)
def test_a_download_that_stalls_or_breaks_off(monkeypatch, tmp_path, server):
    monkeypatch.setattr("anomalib_dpclip.files.downloads.DOWNLOAD_TIMEOUT", 0.5)
    address, connections = server
    monkeypatch.setattr("open_clip.pretrained.get_pretrained_cfg", lambda *names: {"url": f"{address}/clip.pt"})
    monkeypatch.setenv("HOME", str(tmp_path))  # open_clip's cache
    message = r"'openai' of ViT-B-32 .* could not be downloaded.*--model.pretrained /path/to"
    with pytest.raises(FileNotFoundError, match=message):
        load_clip("ViT-B-32", "openai")
    assert len(connections) == 1, "it gave up"


@pytest.mark.parametrize("server", [refuse], indirect=True)
def test_a_hub_that_does_not_answer_is_not_asked_again(monkeypatch, tmp_path, server):
    address, connections = server
    for name, value in {"HF_HUB_OFFLINE": False, "ENDPOINT": address, "HF_HUB_CACHE": str(tmp_path)}.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    with pytest.raises(FileNotFoundError, match=r"could not be downloaded.*--model.pretrained /path/to.*backbone mini"):
        load_clip("ViT-B-32", "laion2b_s34b_b79k")
    assert len(connections) == 1, "the hub's client would have tried for a minute"
