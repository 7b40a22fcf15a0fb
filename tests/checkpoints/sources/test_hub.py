"""The hub source. HF_ENDPOINT and its like are read when huggingface_hub is imported, so whatever asks a hub here runs
in a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.hub_server import COMMIT, Hub
from tests.support.web_server import WebServer, web_server

from bloomery.checkpoints.sources.hub import hub_source
from bloomery.errors import CheckpointError

CONTAINER = Path(__file__).parents[3] / "container"
WEIGHTS = bytes(range(256)) * 100
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS, "tokenizer/vocab.txt": b"To\nbe", "empty.txt": b""}
READ = """
import json, sys
from contextlib import closing
from bloomery.checkpoints.sources.reading import read_bytes
from bloomery.checkpoints.sources import open_source
source = open_source(sys.argv[1], revision=json.loads(sys.argv[2]))
entries = source.checksummed(source.entries())
with closing(source.connect()) as connection:
    content = {entry.name: read_bytes(connection, entry).hex() for entry in entries}
    again = [len(read_bytes(connection, entry, 1, 2)) for entry in entries for _ in range(2)]
found = [[entry.name, entry.size, entry.identity, entry.sha256] for entry in entries]
print(json.dumps([type(source).__name__, found, content, source.licence, sorted(
    name for name in ("torch", "boto3") if name in sys.modules)]))
"""


@pytest.fixture
def hub() -> Hub:
    return Hub(FILES, card={"license": "bigscience-bloom-rail-1.0"})


@pytest.fixture
def server(hub: Hub) -> Iterator[WebServer]:
    with web_server(hub) as server:
        yield server


def run(tmp_path: Path, uri: str, endpoint: str, revision: str | None = None, **env: str) -> Any:
    """What READ prints, or the last line of its error."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    environment |= {"PYTHONPATH": str(CONTAINER), "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home")}
    environment |= {"NO_PROXY": "127.0.0.1", **env}
    command = [sys.executable, "-c", READ, uri, json.dumps(revision)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def cache(tmp_path: Path, files: dict[str, bytes]) -> Path:
    """Put files into the hub's cache, as its library lays them out: links to blobs."""
    home = tmp_path / "home" / "hub" / "models--org--name"
    snapshot = home / "snapshots" / COMMIT
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(COMMIT)
    (home / "blobs").mkdir()
    for name, data in files.items():
        blob = home / "blobs" / hashlib.sha1(data).hexdigest()
        blob.write_bytes(data)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(os.path.relpath(blob, (snapshot / name).parent))
    return snapshot


@pytest.mark.parametrize("uri", ["org/name", "hf://org/name", "hf://org/name@main"])
def test_a_model_is_its_files_at_one_commit(server: WebServer, tmp_path: Path, uri: str) -> None:
    kind, found, content, licence, loaded = run(tmp_path, uri, server.url)
    assert kind == "HubSource"
    assert content == {name: data.hex() for name, data in FILES.items()}
    # Of the content, not of the commit: the next commit leaves most files as they are.
    assert {name: identity for name, _, identity, _ in found} == {
        name: hashlib.sha1(data).hexdigest() for name, data in FILES.items()
    }
    assert {name: sha for name, _, _, sha in found if sha} == {"model.safetensors": hashlib.sha256(WEIGHTS).hexdigest()}
    assert licence == "bigscience-bloom-rail-1.0"
    assert loaded == []


def test_the_way_to_a_large_file_is_asked_for_once(server: WebServer, tmp_path: Path) -> None:
    run(tmp_path, "org/name", server.url)
    assert len([path for path in server.paths if path.endswith("/resolve/" + COMMIT + "/model.safetensors")]) == 1
    assert len([path for path in server.paths if path.startswith("/storage/")]) == 3


def test_the_token_goes_to_the_hub_and_nowhere_else(hub: Hub, server: WebServer, tmp_path: Path) -> None:
    hub.token = "hf_secret"
    with web_server(hub) as storage:
        hub.storage = storage.url
        _, _, content, _, _ = run(tmp_path, "org/name", server.url, HF_TOKEN="hf_secret")
    assert content["model.safetensors"] == WEIGHTS.hex()
    assert storage.paths
    assert not any("authorization" in asked.headers for asked in storage.requests)


def test_a_listing_without_sizes_is_completed(hub: Hub, server: WebServer, tmp_path: Path) -> None:
    hub.with_sizes = False
    _, found, _, _, _ = run(tmp_path, "org/name", server.url)
    assert {name: size for name, size, _, _ in found} == {name: len(data) for name, data in FILES.items()}


def test_what_the_hubs_own_cache_has_is_not_fetched(server: WebServer, tmp_path: Path) -> None:
    cache(tmp_path, {"model.safetensors": WEIGHTS, "config.json": b"cut"})
    _, _, content, _, _ = run(tmp_path, "org/name", server.url)
    assert content == {name: data.hex() for name, data in FILES.items()}
    assert not any("model.safetensors" in path for path in server.paths)


@pytest.mark.parametrize(
    ("uri", "revision", "message"),
    [
        ("org/gated", None, "org/gated is gated: accept its licence on the hub, then set HF_TOKEN"),
        ("org/nothing", None, "org/nothing is neither a directory here"),
        ("org/name", "v9", "org/name has no revision 'v9' on the hub"),
        ("hf://org/name@v9", None, "hf://org/name@v9 has no revision 'v9' on the hub"),
    ],
)
def test_what_a_hub_refuses_is_explained(
    server: WebServer, tmp_path: Path, uri: str, revision: str | None, message: str
) -> None:
    assert message in run(tmp_path, uri, server.url, revision)


def test_a_gated_model_that_may_be_listed_is_explained_too(hub: Hub, server: WebServer, tmp_path: Path) -> None:
    hub.is_gated = True
    assert "org/name is gated: accept its licence on the hub" in run(tmp_path, "org/name", server.url)


def test_a_hub_that_cannot_be_reached_is_said_with_where_was_looked(tmp_path: Path) -> None:
    told = run(tmp_path, "org/name", "http://127.0.0.1:1")
    assert "UnreachableError" in told
    assert f"org/name is not a directory here (looked in {tmp_path}) and could not be fetched" in told


def test_without_a_network_the_hubs_cache_serves(tmp_path: Path) -> None:
    cache(tmp_path, FILES)
    kind, _, content, _, _ = run(tmp_path, "org/name", "http://127.0.0.1:1")
    assert (kind, content) == ("HubSource", {name: data.hex() for name, data in FILES.items()})


class TestOffline:
    def test_the_cache_is_the_source(self, server: WebServer, tmp_path: Path) -> None:
        cache(tmp_path, FILES)
        kind, _, content, _, _ = run(tmp_path, "org/name", server.url, HF_HUB_OFFLINE="1")
        assert (kind, content) == ("DirectorySource", {name: data.hex() for name, data in FILES.items()})
        assert server.paths == []

    @pytest.mark.parametrize(
        "files",
        [
            {},
            {"config.json": b"{}"},
            {
                "config.json": b"{}",
                "model.safetensors.index.json": b'{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}',
                "1.safetensors": b"1",
            },
        ],
    )
    def test_a_cache_without_the_weights_is_not_enough(self, tmp_path: Path, files: dict[str, bytes]) -> None:
        cache(tmp_path, files)
        told = run(tmp_path, "org/name", "http://127.0.0.1:1", HF_HUB_OFFLINE="1")
        assert "UnreachableError: org/name" in told
        assert "HF_HUB_OFFLINE forbids to ask the hub" in told


@pytest.mark.parametrize("uri", ["hf://", "hf://a/b/c", "hf://org/na me", "hf://../x"])
def test_what_is_no_hubs_id_is_said(uri: str) -> None:
    with pytest.raises(CheckpointError, match="is no model of a hub: write hf://organisation/name"):
        hub_source(uri)


def test_two_revisions_at_once_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"names the revision 'v1', and option\.revision 'v2': give one of them"):
        hub_source("hf://org/name@v1", "v2")
