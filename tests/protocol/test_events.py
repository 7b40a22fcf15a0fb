from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloomery.errors import ProtocolError
from bloomery.protocol.events import Event, Failure, Finish, Token, decode_event, encode_event

numbers = st.integers(0, 2**31)
reasons = st.sampled_from(["length", "eos_token", "stop_sequence", "cancelled", "error"])
events = st.one_of(
    st.builds(Token, numbers, numbers, st.text(), st.none() | st.floats(-100, 0)),
    st.builds(Finish, numbers, reasons, numbers, numbers, st.text()),
    st.builds(Failure, numbers, st.text()),
)


@given(events)
def test_an_event_survives_the_wire_on_one_line(event: Event) -> None:
    line = encode_event(event)
    assert line.count(b"\n") == 1
    assert decode_event(line) == event


@pytest.mark.parametrize(
    "line", [b"", b"[]", b"{}", b'{"event":"other"}', b'{"event":"token"}', b'{"event":"failure","code":1,"x":2}']
)
def test_what_is_no_event_is_a_protocol_error(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_event(line)
