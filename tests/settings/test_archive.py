"""Archives: what is unpacked, and what never is."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bloomery.errors import ConfigurationError
from bloomery.settings.archive import Limits, Unpacked, is_archive, stem


@pytest.fixture(autouse=True)
def _own_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))


class Tar:
    """A tar archive of whatever entries a test wants."""

    def __init__(self, path: Path) -> None:
        self.path, self._tar = path, tarfile.open(path, "w:gz")  # noqa: SIM115

    def add(self, name: str, data: bytes = b"x", kind: bytes = tarfile.REGTYPE, target: str = "") -> Tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.size = kind, target, len(data) if kind == tarfile.REGTYPE else 0
        self._tar.addfile(member, io.BytesIO(data))
        return self

    def unpack(self, limits: Limits | None = None) -> Path:
        self._tar.close()
        self.unpacked = Unpacked(limits)  # what it unpacks goes with it
        return self.unpacked.unpack(self.path)


@pytest.fixture
def tar(tmp_path: Path) -> Tar:
    return Tar(tmp_path / "m.tar.gz")


def left_behind(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "tmp").rglob("*") if path.is_file() or path.is_symlink()]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_is_unpacked_with_its_links_and_executables(tmp_path: Path, mode: str) -> None:
    source = tmp_path / "source"
    (source / "blobs").mkdir(parents=True)
    (source / "blobs" / "1").write_text("weights")
    (source / "snapshot").mkdir()
    (source / "snapshot" / "model").symlink_to("../blobs/1")
    (source / "run").write_text("#!/bin/sh")
    (source / "run").chmod(0o4755)
    os.link(source / "run", source / "same")
    path = tmp_path / ("m.tar" if mode == "w" else "m.tgz")
    with tarfile.open(path, mode) as archive:
        archive.add(source, ".")
    unpacked = Unpacked()
    root = unpacked.unpack(path)
    assert root.name == "m"
    assert (root / "snapshot" / "model").read_text() == "weights"
    assert (root / "same").read_text() == "#!/bin/sh"
    assert stat.S_IMODE((root / "run").stat().st_mode) == 0o755


def test_a_zip_is_unpacked_with_its_links(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("a/model.py", "code")
        archive.writestr("empty/", "")
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "a/model.py")
    unpacked = Unpacked()
    root = unpacked.unpack(tmp_path / "m.zip")
    assert (root / "link").read_text() == "code"
    assert (root / "empty").is_dir()


def test_the_last_of_two_files_of_one_name_counts(tar: Tar) -> None:
    root = tar.add("a", b"old").add("a", b"new").unpack()
    assert (root / "a").read_bytes() == b"new"


@pytest.mark.parametrize("name", ["/etc/passwd", "../out", "a/../../out", "a/..", ".."])
def test_a_path_that_leads_out_is_refused(tar: Tar, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="a path that leads out of it; it is not served"):
        tar.add("good").add(name).unpack()
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("name", ["/etc/passwd", "../out", "a/../../out"])
def test_of_a_zip_too(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr(name, "x")
    with pytest.raises(ConfigurationError, match="a path that leads out of it"):
        Unpacked().unpack(tmp_path / "m.zip")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("/etc/passwd", "an absolute path"),
        ("../out", "points out of it"),
        ("a/../../out", "points out of it"),
        ("here/..", "leads through another link"),
        ("here/../../etc", "leads through another link"),
    ],
)
def test_a_link_that_may_point_out_is_refused(tar: Tar, tmp_path: Path, target: str, words: str) -> None:
    tar.add("here", kind=tarfile.SYMTYPE, target=".").add("link", kind=tarfile.SYMTYPE, target=target)
    with pytest.raises(ConfigurationError, match=words):
        tar.unpack()
    assert left_behind(tmp_path) == []


def test_nothing_is_written_through_a_link(tar: Tar, tmp_path: Path) -> None:
    tar.add("d", kind=tarfile.SYMTYPE, target="e").add("d/file")
    with pytest.raises(ConfigurationError, match="cannot be unpacked"):
        tar.unpack()
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("target", ["../outside", "/etc/passwd", "not-there"])
def test_a_hard_link_to_what_is_not_in_it_is_refused(tar: Tar, target: str) -> None:
    with pytest.raises(ConfigurationError):
        tar.add("h", kind=tarfile.LNKTYPE, target=target).unpack()


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_are_refused(tar: Tar, kind: bytes) -> None:
    with pytest.raises(ConfigurationError, match="neither a file, a directory nor a link"):
        tar.add("device", kind=kind).unpack()


def test_it_may_not_unpack_to_more_than_the_limit(tar: Tar, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"more than 1000 bytes \(max_archive_size\)"):
        tar.add("a", bytes(600)).add("b", bytes(600)).unpack(Limits(size=1000))
    assert left_behind(tmp_path) == []


def test_a_zip_bomb_is_measured_by_what_comes_out(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10 * 2**20))
    with pytest.raises(ConfigurationError, match="max_archive_size"):
        Unpacked(Limits(size=2**20)).unpack(tmp_path / "m.zip")


def test_it_may_not_have_more_entries_than_the_limit(tar: Tar) -> None:
    for number in range(4):
        tar.add(f"d{number}", kind=tarfile.DIRTYPE)
    with pytest.raises(ConfigurationError, match="more than 3 entries"):
        tar.unpack(Limits(entries=3))


@pytest.mark.parametrize("size", [2**40, 2**60])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_lies_about_its_size_is_refused(tmp_path: Path, size: int, kind: bytes) -> None:
    member = tarfile.TarInfo("a")
    member.type, member.size = kind, size
    with gzip.open(tmp_path / "m.tar.gz", "wb") as file:
        file.write(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(ConfigurationError):
        Unpacked().unpack(tmp_path / "m.tar.gz")


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar", ".zip"])
@pytest.mark.parametrize("data", [b"", b"no archive at all, but rather long" * 100])
def test_what_is_no_archive_is_refused(tmp_path: Path, suffix: str, data: bytes) -> None:
    path = tmp_path / f"m{suffix}"
    path.write_bytes(data)
    with pytest.raises(ConfigurationError, match=f"m{suffix} is damaged, or no archive"):
        Unpacked().unpack(path)


def test_a_cut_archive_is_refused_and_leaves_nothing(tar: Tar, tmp_path: Path) -> None:
    whole = tar.add("a", os.urandom(100_000)).unpack()
    assert (whole / "a").stat().st_size == 100_000
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(tar.path.read_bytes()[:50_000])
    before = left_behind(tmp_path)
    with pytest.raises(ConfigurationError, match="damaged"):
        Unpacked().unpack(cut)
    assert left_behind(tmp_path) == before


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("a", "x")
    data = bytearray((tmp_path / "m.zip").read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    (tmp_path / "m.zip").write_bytes(data)
    with pytest.raises(ConfigurationError, match="encrypted"):
        Unpacked().unpack(tmp_path / "m.zip")


def test_remove_deletes_everything_and_more_can_be_unpacked_after_it(tar: Tar, tmp_path: Path) -> None:
    tar.add("a").unpack()
    unpacked = Unpacked()
    first = unpacked.unpack(tar.path)
    unpacked.remove()
    assert not first.exists()
    assert unpacked.unpack(tar.path).is_dir()
    unpacked.remove()
    unpacked.remove()


def test_only_this_user_may_look_inside(tar: Tar) -> None:
    tar.add("a").unpack()
    unpacked = Unpacked()
    assert stat.S_IMODE(unpacked.unpack(tar.path).parent.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("name", "expected"), [("model.tar.gz", "model"), ("a.b.TGZ", "a.b"), (".zip", "model"), ("m.tar", "m")]
)
def test_an_archive_is_known_by_its_suffix_and_gives_the_name(tmp_path: Path, name: str, expected: str) -> None:
    (tmp_path / name).touch()
    assert is_archive(tmp_path / name)
    assert stem(tmp_path / name) == expected


PARTS = st.lists(st.sampled_from(["a", "b", "c", "..", ".", ""]), min_size=1, max_size=5).map("/".join)
KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])


@given(st.lists(st.tuples(PARTS, KINDS, PARTS), min_size=1, max_size=6))
@settings(max_examples=300, deadline=None)
def test_whatever_it_holds_nothing_of_it_leads_out(entries: list[tuple[str, bytes, str]]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        tar = Tar(Path(scratch) / "m.tar.gz")
        for name, kind, target in entries:
            tar.add(name, b"data", kind, target)
        try:
            root = tar.unpack()
        except ConfigurationError:
            return
        for path in root.rglob("*"):
            assert Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)), (path, entries)  # a loop too
        tar.unpacked.remove()
