from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloomery.errors import ProtocolError
from bloomery.protocol.control import Ask, Status, decode_ask, decode_status, encode

asks = st.builds(Ask, st.sampled_from(["ping", "cancel", "stack"]), st.text())
statuses = st.builds(
    Status,
    st.text(),
    st.floats(0, 100),
    st.integers(0, 2**60),
    st.integers(0, 2**60),
    st.text(),
    st.text(),
    st.integers(0, 2**60),
    st.dictionaries(st.text(), st.floats(0, 1e6)),
)


@given(asks)
def test_a_question_survives_the_wire_on_one_line(ask: Ask) -> None:
    assert encode(ask).count(b"\n") == 1
    assert decode_ask(encode(ask)) == ask


@given(statuses)
def test_an_answer_survives_the_wire_on_one_line(status: Status) -> None:
    assert encode(status).count(b"\n") == 1
    assert decode_status(encode(status)) == status


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"7", b'{"op":"kill"}', b"{}", b"\xff"])
def test_what_is_no_question_is_a_protocol_error(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_ask(line)


RANK = b'{"phase":"x","percent":1,"steps":1,"tokens":1,"request_id":""'


def test_a_rank_of_an_older_version_counts_no_prompts_and_names_no_phases() -> None:
    assert decode_status(RANK + b"}") == Status("x", 1.0, 1, 1, "")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"{}",
        b'{"phase":"x","percent":"y","steps":1,"tokens":1}',
        RANK + b',"prompt_tokens":[]}',
        RANK + b',"phases":[1]}',
        RANK + b',"phases":{"a":"b"}}',
        RANK + b',"phases":{"a":null}}',
    ],
)
def test_what_is_no_answer_is_a_protocol_error(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_status(line)


@given(st.binary(max_size=200))
def test_arbitrary_lines_decode_or_are_a_protocol_error(line: bytes) -> None:
    for decode in (decode_ask, decode_status):
        try:
            decode(line)
        except ProtocolError:
            pass
