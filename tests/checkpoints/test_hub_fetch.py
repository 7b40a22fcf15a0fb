"""Whole fetches from a hub. huggingface_hub reads HF_ENDPOINT when it is imported: each runs in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from tests.support.safetensors_file import safetensors_bytes

CONTAINER = Path(__file__).parents[2] / "container"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b"{}",
    "model.safetensors": safetensors_bytes(7000),
    "pytorch_model.bin": b"the same weights",
    "tf_model.h5": b"weights of another framework",
}


class FakeHub(BaseHTTPRequestHandler):
    """A fake: the part of a hub's HTTP interface that a download needs, with one model, org/name, at one commit."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.server.requests.append(self.path)  # type: ignore[attr-defined]
        self.answer()

    def answer(self) -> None:
        path = self.path.partition("?")[0]
        if path in ("/api/models/org/name", *(f"/api/models/org/name/revision/{name}" for name in ("main", COMMIT))):
            siblings = [{"rfilename": name, "size": len(data)} for name, data in FILES.items()]
            self.send(200, json.dumps({"id": "org/name", "sha": COMMIT, "siblings": siblings}).encode())
        elif path == f"/api/models/org/name/tree/{COMMIT}":
            tree = [{"type": "file", "path": name, "size": len(data), "oid": name} for name, data in FILES.items()]
            self.send(200, json.dumps(tree).encode())
        elif path.startswith(f"/org/name/resolve/{COMMIT}/"):
            name = path.rpartition("/")[2]
            self.send(200, FILES[name], {"ETag": f'"{name}"', "X-Repo-Commit": COMMIT})
        elif path.startswith("/api/models/org/gated"):
            self.send(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif path.startswith("/api/models/org/name/revision/"):
            self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        else:
            self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def send(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), FakeHub) as server:
        server.requests = []  # type: ignore[attr-defined]
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetch(
    tmp_path: Path, model_id: str, endpoint: str, revision: str | None = None
) -> subprocess.CompletedProcess[str]:
    script = f"from bloomery import checkpoints; print(checkpoints.fetch({model_id!r}, revision={revision!r}))"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    environment |= {"PYTHONPATH": str(CONTAINER), "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home")}
    environment |= {"TMPDIR": str(tmp_path), "NO_PROXY": "127.0.0.1"}
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )


def test_a_model_arrives_without_duplicate_weights(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    done = fetch(tmp_path, "org/name", f"http://127.0.0.1:{hub.server_port}")
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip())
    assert path.parent == tmp_path
    arrived = {file.name: file.read_bytes() for file in path.iterdir() if not file.name.startswith(".")}
    assert arrived == {name: FILES[name] for name in ("config.json", "model.safetensors")}


def test_what_is_there_is_not_fetched_again(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    for _ in range(2):
        fetch(tmp_path, "org/name", f"http://127.0.0.1:{hub.server_port}", revision="main")
    requests: list[str] = hub.requests  # type: ignore[attr-defined]
    assert len([path for path in requests if path.endswith("model.safetensors")]) == 1


@pytest.mark.parametrize(
    ("model_id", "revision", "message"),
    [
        ("org/gated", None, "org/gated is gated: accept its licence on the hub, then set HF_TOKEN"),
        ("org/nothing", None, "org/nothing is neither a directory here"),
        ("org/name", "v9", "org/name has no revision 'v9' on the hub"),
    ],
)
def test_what_a_hub_refuses_is_explained(
    hub: ThreadingHTTPServer, tmp_path: Path, model_id: str, revision: str | None, message: str
) -> None:
    done = fetch(tmp_path, model_id, f"http://127.0.0.1:{hub.server_port}", revision)
    assert done.returncode == 1
    assert message in done.stderr


def test_a_hub_that_cannot_be_reached_is_said_with_where_was_looked(tmp_path: Path) -> None:
    done = fetch(tmp_path, "org/name", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert f"org/name is not a directory here (looked in {tmp_path}) and could not be fetched" in done.stderr
