"""Whole fetches from a hub. huggingface_hub reads HF_ENDPOINT when it is imported: each runs in its own process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.hub_server import Hub
from tests.support.safetensors_file import safetensors_bytes
from tests.support.web_server import WebServer, web_server

CONTAINER = Path(__file__).parents[2] / "container"
FETCH = "import sys; from bloomery import checkpoints; print(checkpoints.fetch(sys.argv[1]))"
FILES = {
    "config.json": b"{}",
    "model.safetensors": safetensors_bytes(30_000),
    "pytorch_model.bin": b"the same weights",
    "tf_model.h5": b"weights of another framework",
    ".gitattributes": b"",
}


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server(Hub(FILES)) as server:
        yield server


def fetch(tmp_path: Path, endpoint: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    environment |= {"PYTHONPATH": str(CONTAINER), "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home")}
    environment |= {"TMPDIR": str(tmp_path), "NO_PROXY": "127.0.0.1", **more}
    command = [sys.executable, "-c", FETCH, "org/name"]
    return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)


def test_a_model_arrives_without_duplicate_weights_as_plain_files(server: WebServer, tmp_path: Path) -> None:
    done = fetch(tmp_path, server.url)
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip())
    assert path.parent == tmp_path
    arrived = {file.name: file.read_bytes() for file in path.iterdir() if file.name != ".fetched.json"}
    assert arrived == {name: FILES[name] for name in ("config.json", "model.safetensors")}
    assert not any(file.is_symlink() for file in path.iterdir())


def test_what_is_there_is_not_fetched_again(server: WebServer, tmp_path: Path) -> None:
    for _ in range(2):
        assert fetch(tmp_path, server.url).returncode == 0
    assert len([path for path in server.paths if path.startswith("/storage/model.safetensors")]) == 1


def test_what_another_tool_has_fetched_is_compared_by_its_sha256_and_kept(server: WebServer, tmp_path: Path) -> None:
    target = Path(fetch(tmp_path, server.url).stdout.strip())
    (target / ".fetched.json").unlink()
    server.requests.clear()
    assert fetch(tmp_path, server.url).returncode == 0
    assert not [path for path in server.paths if path.startswith("/storage/")]
    (target / ".fetched.json").unlink()
    (target / "model.safetensors").write_bytes(bytes(len(FILES["model.safetensors"])))
    assert fetch(tmp_path, server.url).returncode == 0
    assert (target / "model.safetensors").read_bytes() == FILES["model.safetensors"]


@pytest.mark.parametrize("offline", ["0", "1"])
def test_what_was_fetched_serves_when_the_hub_cannot_be_asked(server: WebServer, tmp_path: Path, offline: str) -> None:
    first = fetch(tmp_path, server.url)
    done = fetch(tmp_path, "http://127.0.0.1:1", HF_HUB_OFFLINE=offline)
    assert done.returncode == 0, done.stderr
    assert done.stdout == first.stdout
    assert "using what was fetched earlier into" in done.stderr


def test_a_hub_that_cannot_be_reached_is_said(tmp_path: Path) -> None:
    done = fetch(tmp_path, "http://127.0.0.1:1")
    assert done.returncode == 1
    assert f"org/name is not a directory here (looked in {tmp_path}) and could not be fetched" in done.stderr
