from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloomery.tasks.stopping import StopSequences


def run(sequences: list[str], pieces: list[str]) -> tuple[list[str], bool]:
    stop = StopSequences(sequences)
    out: list[str] = []
    for piece in pieces:
        text, stopped = stop.push(piece)
        out.append(text)
        if stopped:
            return out, True
    return [*out, stop.flush()], False


def test_without_sequences_everything_passes_at_once() -> None:
    assert run([], ["To ", "be"]) == (["To ", "be", ""], False)


def test_the_text_ends_before_the_sequence() -> None:
    assert run(["\n"], ["To be", " or\nnot"]) == (["To be", " or"], True)


def test_a_sequence_may_span_pieces() -> None:
    assert run(["END"], ["To be E", "N", "D of it"]) == (["To be ", "", ""], True)


def test_a_possible_start_that_comes_to_nothing_is_given_back() -> None:
    assert run(["END"], ["To be E", "N", "tirely"]) == (["To be ", "", "ENtirely", ""], False)


def test_a_possible_start_at_the_end_of_the_text_is_flushed() -> None:
    assert run(["END"], ["To be EN"]) == (["To be ", "EN"], False)


def test_the_first_of_several_sequences_wins() -> None:
    assert run(["not", "or"], ["To be or not"]) == (["To be "], True)


@pytest.mark.parametrize("pieces", [["aab", "aabc"], ["a", "a", "b", "a", "a", "b", "c"]])
def test_a_sequence_that_overlaps_its_own_false_start_is_found(pieces: list[str]) -> None:
    out, stopped = run(["aabc"], pieces)
    assert ("".join(out), stopped) == ("aab", True)


@given(
    text=st.text("ab", max_size=20), sequence=st.text("ab", min_size=1, max_size=4), cuts=st.lists(st.integers(1, 4))
)
def test_pieces_give_what_the_whole_text_gives(text: str, sequence: str, cuts: list[int]) -> None:
    pieces, rest = [], text
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    out, stopped = run([sequence], [*pieces, rest])
    assert stopped == (sequence in text)
    assert "".join(out) == text.partition(sequence)[0]
