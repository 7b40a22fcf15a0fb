from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from bloomery.checkpoints.disk import journal
from bloomery.checkpoints.disk.journal import Journal, Written
from bloomery.checkpoints.source import Entry

ENTRY = Entry("a/model.safetensors", 100, '"etag"')
KEY = (ENTRY.name, ENTRY.identity, ENTRY.size)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def note(path: Path, *parts: Written, entry: Entry = ENTRY) -> None:
    notes = Journal(path)
    for part in parts:
        notes.note(entry, part)
    notes.close()


def test_what_was_noted_is_read_in_order(path: Path) -> None:
    parts = [Written(0, 40, 7), Written(40, 60, (1 << 64) - 1)]
    note(path, *reversed(parts))
    assert journal.read(path) == {KEY: parts}


def test_a_later_journal_goes_on_with_the_earlier(path: Path) -> None:
    note(path, Written(0, 40, 1))
    note(path, Written(40, 60, None))
    assert journal.read(path) == {KEY: [Written(0, 40, 1), Written(40, 60, None)]}


def test_another_version_of_a_file_is_another_file(path: Path) -> None:
    other = Entry(ENTRY.name, ENTRY.size, '"other"')
    note(path, Written(0, 40, 1))
    note(path, Written(0, 50, 2), entry=other)
    assert journal.read(path)[KEY] == [Written(0, 40, 1)]
    assert journal.read(path)[other.name, other.identity, other.size] == [Written(0, 50, 2)]


def test_the_last_word_on_a_part_counts(path: Path) -> None:
    note(path, Written(0, 40, 1), Written(0, 40, 2))
    assert journal.read(path) == {KEY: [Written(0, 40, 2)]}


@pytest.mark.parametrize("cut", range(2, 60, 7))
def test_a_torn_line_is_nothing_and_spoils_no_other(path: Path, cut: int) -> None:
    note(path, Written(0, 40, 1), Written(40, 60, 2))
    os.truncate(path, path.stat().st_size - cut)
    assert journal.read(path) == {KEY: [Written(0, 40, 1)]}
    note(path, Written(50, 50, 3))
    assert journal.read(path) == {KEY: [Written(0, 40, 1), Written(50, 50, 3)]}


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'["a/model.safetensors", "\\"etag\\"", "many", 0, 10, null]',
        b'["a/model.safetensors", "\\"etag\\"", 100, -5, 10, null]',
        b'["a/model.safetensors", "\\"etag\\"", 100, 95, 10, null]',
        b'["a/model.safetensors", "\\"etag\\"", 100, 5, 0, null]',
        b'[["a"], "\\"etag\\"", 100, 0, 10, null]',
        b'["a/model.safetensors", "\\"etag\\"", 100, 0, 10, "xyz"]',
    ],
)
def test_a_line_that_makes_no_sense_claims_nothing(path: Path, line: bytes) -> None:
    path.write_bytes(line + b"\n")
    assert journal.read(path).get(KEY, []) == []


def test_parts_that_overlap_are_not_claimed_both(path: Path) -> None:
    note(path, Written(0, 40, 1), Written(30, 40, 2), Written(40, 60, 3))
    assert journal.read(path) == {KEY: [Written(0, 40, 1), Written(40, 60, 3)]}


def test_there_need_not_be_one(path: Path) -> None:
    assert journal.read(path) == {}


def test_threads_write_whole_lines(path: Path) -> None:
    notes = Journal(path)
    entry = Entry("x" * 3000, 1 << 40, "e")  # long lines

    def write(first: int) -> None:
        for index in range(50):
            notes.note(entry, Written((first * 50 + index) * 10, 10, index))

    threads = [threading.Thread(target=write, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    notes.close()
    assert len(journal.read(path)[entry.name, entry.identity, entry.size]) == 200
