from __future__ import annotations

import pytest

from bloomery.processes.tail import KEPT_LINES, LONGEST_LINE, Tail


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def tail(lines: list[str]) -> Tail:
    return Tail(lines.append)


def test_lines_are_passed_on_when_they_are_complete(tail, lines):
    tail.feed(b"on")
    assert lines == []
    tail.feed(b"e\ntwo\nth")
    assert lines == ["one", "two"]
    tail.close()
    assert lines == ["one", "two", "th"]


def test_the_redrawn_line_of_a_progress_bar_counts_as_lines(tail, lines):
    tail.feed(b"10 %\r20 %\r\n")

    assert lines == ["10 %", "20 %"]


def test_bytes_that_are_no_text_do_no_harm(tail, lines):
    tail.feed(b"\xff\xfe\n")

    assert lines == ["\N{REPLACEMENT CHARACTER}" * 2]


def test_a_line_without_end_is_cut(tail, lines):
    for _ in range(10):
        tail.feed(b"x" * LONGEST_LINE)

    assert lines
    assert max(len(line) for line in lines) == LONGEST_LINE


def test_only_the_last_lines_are_kept(tail):
    for number in range(KEPT_LINES * 2):
        tail.feed(b"%d\n" % number)

    assert tail.last(2) == [str(KEPT_LINES * 2 - 2), str(KEPT_LINES * 2 - 1)]
    assert len(tail.last(10**6)) == KEPT_LINES
