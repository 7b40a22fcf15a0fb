from __future__ import annotations

import os
from pathlib import Path

import pytest
from awscrt.checksums import crc64nvme

from bloomery.checkpoints.source import ChangedError, TransientError
from bloomery.checkpoints.sources import manifest
from bloomery.checkpoints.sources.directory import DirectorySource
from bloomery.checkpoints.sources.manifest import Listed
from bloomery.checkpoints.sources.reading import read_bytes
from bloomery.errors import CheckpointError

FILES = {
    "config.json": b"{}",
    "tokenizer/vocab.txt": b"To\nbe",
    "empty.txt": b"",
    "README.md": b"---\nlicense: mit\n---",
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "model"


def test_a_directory_is_its_files(model: Path) -> None:
    source = DirectorySource(model)
    connection = source.connect()
    assert {entry.name: read_bytes(connection, entry) for entry in source.entries()} == FILES
    assert source.licence == "mit"


def test_what_is_hidden_belongs_to_tools(model: Path) -> None:
    (model / ".git").mkdir()
    (model / ".git" / "config").touch()
    (model / ".fetched.json").touch()
    assert {entry.name for entry in DirectorySource(model).entries()} == set(FILES)


def test_links_to_files_are_files(model: Path) -> None:
    (model / "link.json").symlink_to(model / "config.json")
    (model / "broken.json").symlink_to(model / "nowhere")
    names = {entry.name for entry in DirectorySource(model).entries()}
    assert "link.json" in names
    assert "broken.json" not in names


def test_one_file_may_be_named(model: Path) -> None:
    source = DirectorySource(model / "config.json")
    assert read_bytes(source.connect(), source.entries()[0]) == b"{}"


def test_a_range_is_read(model: Path) -> None:
    source = DirectorySource(model)
    vocabulary = next(entry for entry in source.entries() if entry.name.endswith("vocab.txt"))
    assert read_bytes(source.connect(), vocabulary, 1, 3) == b"o\nb"


def test_a_manifest_vouches_for_the_files_it_was_written_for(model: Path) -> None:
    listed = {"config.json": Listed(2, crc64nvme(b"{}"), None), "empty.txt": Listed(9, 1, None)}
    (model / manifest.NAME).write_bytes(manifest.written(listed))
    source = DirectorySource(model)
    found = {entry.name: entry.crc64nvme for entry in source.checksummed(source.entries())}
    assert (found["config.json"], found["empty.txt"]) == (crc64nvme(b"{}"), None)


def test_a_file_that_was_written_to_is_noticed(model: Path) -> None:
    source = DirectorySource(model / "config.json")
    entry = source.entries()[0]
    os.utime(model / "config.json", ns=(0, 0))
    with pytest.raises(ChangedError, match=r"config\.json was changed while it was read"):
        read_bytes(source.connect(), entry)


def test_a_file_that_was_cut_is_noticed(model: Path) -> None:
    source = DirectorySource(model / "config.json")
    entry = source.entries()[0]
    with source.connect().read(entry, 0, 2) as body:
        os.truncate(model / "config.json", 1)
        assert body.readinto(memoryview(bytearray(1))) == 1
        with pytest.raises(ChangedError, match=r"config\.json was cut at 1"):
            body.readinto(memoryview(bytearray(1)))


def test_a_closed_connection_reads_no_more(model: Path) -> None:
    source = DirectorySource(model)
    connection = source.connect()
    connection.close()
    with pytest.raises(TransientError), connection.read(source.entries()[0], 0, 1):
        pass


def test_a_directory_without_files_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no files \(looked at /"):
        DirectorySource(tmp_path).entries()
    with pytest.raises(CheckpointError, match="does not exist"):
        DirectorySource(tmp_path / "nowhere").entries()
