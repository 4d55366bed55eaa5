"""A stand-in for the Hugging Face hub: one server on this machine that keeps commits in memory."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_a_token"


class Hub:
    """Repositories by ``owner/name``, each a list of commits, oldest first: name of the commit and its files."""

    def __init__(self) -> None:
        self.repositories: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.private: set[str] = set()
        self.requests: list[tuple[str, str]] = []
        self.address = ""

    def commit(self, repository: str, files: dict[str, bytes]) -> str:
        """Add a commit; gives its name, 40 hexadecimal digits as git's."""
        commits = self.repositories.setdefault(repository, [])
        content = (commits[-1][1] if commits else {}) | files
        name = hashlib.sha1(repr((len(commits), sorted(content.items()))).encode()).hexdigest()
        commits.append((name, content))
        return name

    def files(self, repository: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """A commit by its name, or the newest as ``main``."""
        commits = self.repositories[repository]
        found = commits[-1:] if revision == "main" else [each for each in commits if each[0] == revision]
        return found[0] if found else None


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (its name in the standard library)
        pass

    def answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def json(self, value: object, status: int = 200) -> None:
        self.answer(status, json.dumps(value).encode(), Content_Type="application/json")

    def refuse(self, code: str) -> None:
        self.answer(404, X_Error_Code=code)

    def do_GET(self) -> None:
        self.hub.requests.append((self.command, self.path))
        parts = self.path.strip("/").split("/")
        if len(parts) < 4:
            self.answer(200)
            return
        is_question = parts[:2] == ["api", "models"]
        repository = "/".join(parts[2:4] if is_question else parts[:2])
        if repository not in self.hub.repositories:
            self.refuse("RepoNotFound")
        elif is_question:
            self.json({"id": repository, "siblings": []})
        else:
            self.give(self.hub.files(repository, parts[3]), "/".join(parts[4:]))

    def give(self, found: tuple[str, dict[str, bytes]] | None, name: str) -> None:
        if found is None:
            self.refuse("RevisionNotFound")
        elif name not in found[1]:
            self.refuse("EntryNotFound")
        else:
            etag = f'"{hashlib.sha256(found[1][name]).hexdigest()}"'
            self.answer(200, found[1][name], ETag=etag, X_Repo_Commit=found[0])

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.hub.requests.append((self.command, self.path))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401)
            return
        parts = self.path.strip("/").split("/")
        if parts[1] == "validate-yaml":
            self.json({"warnings": [], "errors": []})
        elif parts[1:3] == ["repos", "create"]:
            wanted = json.loads(body)
            repository = f"{wanted['organization']}/{wanted['name']}"
            taken = repository in self.hub.repositories
            self.hub.repositories.setdefault(repository, [])
            if wanted.get("private") or wanted.get("visibility") == "private":
                self.hub.private |= set() if taken else {repository}
            self.json({"url": f"{self.hub.address}/{repository}", "id": repository}, 409 if taken else 200)
        elif parts[4] == "preupload":
            wanted = [each["path"] for each in json.loads(body)["files"]]
            self.json({"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in wanted]})
        else:
            lines = [json.loads(line) for line in body.splitlines()]
            values = [line["value"] for line in lines if line["key"] == "file"]
            files = {value["path"]: base64.b64decode(value["content"]) for value in values}
            repository = "/".join(parts[2:4])
            name = self.hub.commit(repository, files)
            self.json({"commitUrl": f"{self.hub.address}/{repository}/commit/{name}", "commitOid": name, "success": True})


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that answers while the block runs."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
