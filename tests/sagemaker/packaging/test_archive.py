"""The archive itself: the same bytes for the same files, and nothing in it that SageMaker would refuse."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import socket
import tarfile
from pathlib import Path

import pytest
from tests.sagemaker.packaging.conftest import MODEL, Writer

from bloomery.errors import PackagingError
from bloomery.sagemaker.packaging import package
from bloomery.sagemaker.packaging.stored_gzip import StoredGzip
from bloomery.settings.extraction import extract

FILES: dict[str, str | bytes] = {
    "model.py": MODEL,
    "serving.properties": "engine=Python\n",
    "templates/chat.jinja": "{{ messages }}",
    "templates/ü" + "x" * 120: "a name for which tar needs more than its header",
    "empty.txt": "",
}
# Of these files, wherever and whenever they are packaged: it changes when the format does.
DIGEST = "6551b6a1bbce1036"


def test_the_same_files_make_the_same_bytes_whatever_their_times_and_rights(write: Writer, tmp_path: Path) -> None:
    first = package(write(FILES, "one"), tmp_path / "one.tar.gz")
    other = write(dict(reversed(FILES.items())), "two")
    for path in other.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700 if path.is_dir() else 0o600)
    second = package(other, tmp_path / "two.tar.gz")

    assert first.path
    assert second.path
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.sha256 == second.sha256 == hashlib.sha256(first.path.read_bytes()).hexdigest()
    assert first.sha256.startswith(DIGEST)
    assert first.size == first.path.stat().st_size


def test_a_changed_byte_makes_another_archive(write: Writer) -> None:
    before = package(write(FILES), None)
    after = package(write({"empty.txt": "x"}), None)
    assert before.sha256 != after.sha256


def test_what_is_unpacked_is_what_was_packed(write: Writer, tmp_path: Path) -> None:
    directory = write(FILES)
    (directory / "start.sh").write_text("#!/bin/sh\n")
    (directory / "start.sh").chmod(0o775)
    archive = package(directory, tmp_path / "model.tar.gz")
    assert archive.path
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    extract(archive.path, unpacked, 10**6, 100, links=False)  # as the emulator of SageMaker does it
    found = {str(path.relative_to(unpacked)): path.read_bytes() for path in unpacked.rglob("*") if path.is_file()}
    assert found == {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}
    assert set(archive.members) == set(found)
    with tarfile.open(archive.path) as tar:
        for entry in tar:
            executable = entry.name == "start.sh"
            assert (entry.mode, entry.mtime, entry.uid, entry.gid, entry.uname) == (
                *(0o755 if executable else 0o644, 0, 0, 0, ""),
            )


@pytest.mark.skipif(shutil.which("tar") is None, reason="there is no tar program")
def test_other_programs_read_it(write: Writer, tmp_path: Path) -> None:
    archive = package(write(FILES), tmp_path / "model.tar.gz", top="bloom")
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    shutil.unpack_archive(str(archive.path), unpacked, filter="data")
    assert os.system(f"gzip -t {archive.path} && tar tzf {archive.path} > {tmp_path / 'list'}") == 0
    assert (unpacked / "bloom" / "model.py").read_text() == MODEL
    assert "bloom/model.py" in (tmp_path / "list").read_text().splitlines()


@pytest.mark.parametrize("size", [0, 1, 65534, 65535, 65536, 200_000])
def test_stored_blocks_are_gzip(size: int) -> None:
    data = os.urandom(size)
    out = io.BytesIO()
    writer = StoredGzip(out.write)
    for start in range(0, size, 10_240):
        writer.write(data[start : start + 10_240])
    writer.close()
    assert gzip.decompress(out.getvalue()) == data


def test_caches_and_editors_files_are_left_out_and_named(write: Writer, tmp_path: Path) -> None:
    noise = {
        "__pycache__/model.cpython-311.pyc": "x",
        ".git/config": "x",
        ".ipynb_checkpoints/model.py": "x",
        "my-environment/pyvenv.cfg": "x",
        "my-environment/lib/big.bin": "x",
        ".DS_Store": "x",
        "model.py~": "x",
        ".model.py.swp": "x",
        "pkg/__pycache__/a.pyc": "x",
        "notes.txt": "x",
    }
    archive = package(write({**FILES, **noise}), None, exclude=["notes*"])
    assert set(archive.members) == set(FILES)
    assert archive.left_out == (
        ".DS_Store",
        ".git/",
        ".ipynb_checkpoints/",
        ".model.py.swp",
        "__pycache__/",
        "model.py~",
        "my-environment/",
        "notes.txt",
        "pkg/__pycache__/",
    )


def test_an_archive_is_not_in_itself(write: Writer) -> None:
    directory = write(FILES)
    first = package(directory, directory / "model.tar.gz")
    second = package(directory, directory / "model.tar.gz")
    assert first.sha256 == second.sha256
    assert second.left_out == ("model.tar.gz",)


def test_links_and_special_files_are_refused_by_name(write: Writer, tmp_path: Path) -> None:
    directory = write(FILES)
    (directory / "weights").symlink_to("/mnt/weights")
    with socket.socket(socket.AF_UNIX) as special:
        here = os.getcwd()
        os.chdir(directory)  # the path of a socket is short
        special.bind("socket")
        os.chdir(here)
        with pytest.raises(PackagingError) as caught:
            package(directory, tmp_path / "model.tar.gz")
    assert "weights: error: it is a link to /mnt/weights" in str(caught.value)
    assert "socket: error: it is neither a file nor a directory" in str(caught.value)
    assert not (tmp_path / "model.tar.gz").exists()


def test_names_that_are_not_utf_8_are_refused(write: Writer) -> None:
    directory = write({"model.py": MODEL})
    place = os.fsencode(directory) + b"/caf\xe9"
    try:
        os.mkdir(place)
    except OSError:
        pytest.skip("this file system has no such names")
    with open(place + b"/a.txt", "wb"):
        pass
    with pytest.raises(PackagingError, match=r"caf\?/a\.txt: error: .*not UTF-8"):
        package(directory, None)


@pytest.mark.parametrize(
    ("output", "says"),
    [("model.zip", "end in .tar.gz"), ("nowhere/model.tar.gz", "there is no directory")],
)
def test_where_it_cannot_be_written(write: Writer, tmp_path: Path, output: str, says: str) -> None:
    with pytest.raises(PackagingError, match=says):
        package(write(FILES), tmp_path / output)


def test_what_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(PackagingError, match="there is no such directory"):
        package(tmp_path / "code", None)
    (tmp_path / "model.py").write_text(MODEL)
    with pytest.raises(PackagingError, match="it is a file"):
        package(tmp_path / "model.py", None)


def test_a_failure_leaves_the_old_archive(write: Writer, tmp_path: Path) -> None:
    target = tmp_path / "model.tar.gz"
    directory = write(FILES)
    package(directory, target)
    before = target.read_bytes()
    (directory / "model.py").write_text("def handle(:\n")
    with pytest.raises(PackagingError, match=r"model\.py:1: error: it is no valid Python"):
        package(directory, target)
    assert target.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["code", "model.tar.gz"]


@pytest.mark.parametrize("top", ["../up", "/abs", "", "a/b"])
def test_a_top_directory_has_a_plain_name(write: Writer, top: str) -> None:
    with pytest.raises(PackagingError, match="--top"):
        package(write(FILES), None, top=top)
