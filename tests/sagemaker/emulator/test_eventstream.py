from __future__ import annotations

import json

from botocore.eventstream import EventStreamBuffer, EventStreamMessage

from bloomery.sagemaker.emulator.invoking import eventstream


def decoded(data: bytes) -> list[EventStreamMessage]:
    """As botocore reads it; it checks both checksums."""
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return list(buffer)


def test_a_piece_is_one_event() -> None:
    (message,) = decoded(eventstream.payload_parts(b'{"outputs": ["to be"]}\n'))
    assert message.payload == b'{"outputs": ["to be"]}\n'
    assert message.headers == {
        ":message-type": "event",
        ":event-type": "PayloadPart",
        ":content-type": "application/octet-stream",
    }


def test_messages_follow_each_other() -> None:
    messages = decoded(eventstream.payload_parts(b"a") + eventstream.payload_parts("ü".encode()))
    assert [message.payload for message in messages] == [b"a", "ü".encode()]


def test_a_piece_too_large_for_a_message_is_cut() -> None:
    data = bytes(range(256)) * 70_000  # 17 MiB
    messages = decoded(eventstream.payload_parts(data))
    assert len(messages) == 2
    assert b"".join(message.payload for message in messages) == data


def test_an_exception_carries_its_name_and_members() -> None:
    (message,) = decoded(eventstream.exception("ModelStreamError", {"Message": "gone", "ErrorCode": "StreamBroken"}))
    assert message.headers[":message-type"] == "exception"
    assert message.headers[":exception-type"] == "ModelStreamError"
    assert json.loads(message.payload) == {"Message": "gone", "ErrorCode": "StreamBroken"}
