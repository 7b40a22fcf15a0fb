from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from awscrt.checksums import crc64nvme
from hypothesis import given
from hypothesis import strategies as st
from tests.support.safetensors_file import safetensors_bytes

from bloomery.checkpoints.disk import integrity
from bloomery.checkpoints.disk.journal import Written
from bloomery.checkpoints.source import Entry
from bloomery.errors import CheckpointError

DATA = os.urandom(3 << 20)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def file(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDONLY)
    yield file
    os.close(file)


def test_the_checksum_is_the_one_that_s3_has() -> None:
    assert integrity.running(memoryview(b"123456789"), 0) == 0xAE8B14860A799888  # the algorithm's check value


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6))
def test_parts_combine_to_the_checksum_of_the_whole(data: bytes, cuts: list[int]) -> None:
    bounds = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    parts = [Written(start, stop - start, crc64nvme(data[start:stop])) for start, stop in itertools.pairwise(bounds)]
    assert integrity.combined(parts) == crc64nvme(data)


def test_a_part_without_a_checksum_leaves_the_whole_without() -> None:
    assert integrity.combined([Written(0, 5, 3), Written(5, 5, None)]) is None


def test_a_range_of_a_file_has_the_checksum_of_its_bytes(file: int, path: Path) -> None:
    assert integrity.crc_of(file, 1000, 2_000_000) == crc64nvme(DATA[1000:2_001_000])
    assert integrity.crc_of(file, len(DATA) - 5, 100) == crc64nvme(DATA[-5:])
    assert integrity.crc_of_file(path) == crc64nvme(DATA)


def test_a_file_agrees_with_whatever_checksum_is_known(file: int) -> None:
    crc, sha = crc64nvme(DATA), hashlib.sha256(DATA).hexdigest()
    assert integrity.mismatch(Entry("f", len(DATA), "i", crc, sha), file, crc) == ""
    assert integrity.mismatch(Entry("f", len(DATA), "i", None, sha), file, crc) == ""
    assert integrity.mismatch(Entry("f", len(DATA), "i"), file, crc) == ""
    assert "its CRC64NVME is 0000000000000005 and should be" in integrity.mismatch(
        Entry("f", len(DATA), "i", crc), file, 5
    )
    assert "its SHA-256 is" in integrity.mismatch(Entry("f", len(DATA), "i", None, "0" * 64), file, crc)


@pytest.mark.parametrize("at", [0, 1, 499, 998, 999])
def test_the_first_difference_is_found(at: int) -> None:
    left = bytearray(1000)
    right = bytearray(left)
    right[at] ^= 1
    right[-1] ^= 1 if at < 999 else 0
    assert integrity.first_difference(memoryview(left), memoryview(right)) == at
    assert integrity.first_difference(memoryview(left), memoryview(left)) is None


def check_header(tmp_path: Path, data: bytes, present: int, name: str = "model.safetensors") -> None:
    path = tmp_path / name
    path.write_bytes(data)
    file = os.open(path, os.O_RDONLY)
    try:
        integrity.check_header(file, Entry(name, len(data), "i"), present, "s3://b/" + name)
    finally:
        os.close(file)


def test_a_header_is_checked_as_soon_as_it_is_there(tmp_path: Path) -> None:
    good = safetensors_bytes(1000)
    check_header(tmp_path, good, 1000)
    bad = good.replace(b"U8", b"U9")
    check_header(tmp_path, bad, 50)  # it is longer than that
    with pytest.raises(CheckpointError, match=r"s3://b/model\.safetensors is damaged.*unknown dtype 'U9'"):
        check_header(tmp_path, bad, 200)


def test_only_safetensors_have_one(tmp_path: Path) -> None:
    check_header(tmp_path, b"anything", 8, "pytorch_model.bin")


def check_index(tmp_path: Path, text: str, names: set[str], name: str = "model.safetensors.index.json") -> None:
    path = tmp_path / "index"
    path.write_text(text)
    file = os.open(path, os.O_RDONLY)
    try:
        integrity.check_index(file, Entry(name, len(text), "i"), frozenset(names), "s3://b/model")
    finally:
        os.close(file)


def test_an_index_names_files_that_are_there(tmp_path: Path) -> None:
    text = json.dumps({"weight_map": {"w": "1.safetensors", "v": "2.safetensors"}})
    check_index(tmp_path, text, {"1.safetensors", "2.safetensors"})
    check_index(tmp_path, text, {"text/1.safetensors", "text/2.safetensors"}, "text/model.safetensors.index.json")
    with pytest.raises(CheckpointError, match=r"is incomplete: .* names 2 files, and 1 of them .*'2\.safetensors'"):
        check_index(tmp_path, text, {"1.safetensors", "text/2.safetensors"})


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": []}', '{"other": {}}', '{"weight_map": {"a": []}}'])
def test_another_kind_of_index_is_left_alone(tmp_path: Path, text: str) -> None:
    check_index(tmp_path, text, set())
