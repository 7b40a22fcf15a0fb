"""Several requests as one frame, and one answer taken apart again (DJLServing's dynamic and rolling batches).

Keys of property and content carry their request's number, ``batch_000.`` in three digits as since DJLServing 0.25; an
answer has exactly one content entry per request, ``batch_0.data`` or ``batch_0.``, with any number of digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from bloomery.protocol.frames import ContentPart, Request, ResponseHead
from bloomery.workers.answer import Answer
from bloomery.workers.failure import handler_failure

BATCH_SIZE = "batch_size"
_KEY = re.compile(r"batch_(\d+)\.(.*)", re.DOTALL)
_ITEM_PROPERTY = re.compile(r"batch_(\d+)_(.+)", re.DOTALL)  # a rolling batch's header of one request


class BatchAnswerError(Exception):
    """The handler's answer does not fit the requests it was given; the text says how."""


def joined(requests: Sequence[Request]) -> Request:
    """One request that holds them all."""
    properties = {BATCH_SIZE: str(len(requests))}
    content: list[ContentPart] = []
    for number, request in enumerate(requests):
        properties |= {f"{prefix(number)}{key}": value for key, value in request.properties.items()}
        content += [(f"{prefix(number)}{key or ''}", data) for key, data in request.content]
    return Request(properties, content)


def prefix(number: int) -> str:
    """What stands before each key of one request."""
    return f"batch_{number:03d}."


def answers(head: ResponseHead, count: int) -> list[Answer]:
    """Each request's own answer. One status line is all that a batch has, so a failure is everybody's."""
    if head.code >= 300:
        part = head.content[:1] if head.content else []
        return [Answer(head.code, head.message, head.properties, [(None, data) for _, data in part])] * count
    try:
        bodies = entries(head, count)
    except BatchAnswerError as error:
        return answers(handler_failure(str(error)), count)
    return [Answer(head.code, head.message, head.properties, [("data", body)]) for body in bodies]


def entries(head: ResponseHead, count: int) -> list[bytes]:
    """The answer's content by request; BatchAnswerError when it is not exactly one entry for each."""
    if head.content is None:
        raise BatchAnswerError("Batch output is a stream; a joined request cannot be streamed (add_stream_content)")
    found: dict[int, bytes] = {}
    for key, data in head.content:
        match = _KEY.fullmatch(key or "")
        if match is None or int(match[1]) >= count:
            raise BatchAnswerError(f"Unexpected batch output key: {key}; expected batch_index 0 to {count - 1}")
        if int(match[1]) in found:
            raise BatchAnswerError(f"Batch output has two entries for batch_index {int(match[1])}")
        found[int(match[1])] = data
    if len(found) != count:
        raise BatchAnswerError(f"Batch output size mismatch, expected: {count}, actual: {len(found)}")
    return [found[number] for number in range(count)]


def item_properties(head: ResponseHead, number: int) -> dict[str, str]:
    """The headers of one request of a rolling batch: the shared ones, and those named ``batch_<number>_…``."""
    return dict(_item_properties(head, number))


def _item_properties(head: ResponseHead, number: int) -> Iterator[tuple[str, str]]:
    own = []
    for key, value in head.properties.items():
        match = _ITEM_PROPERTY.fullmatch(key)
        if match is None:
            yield key, value
        elif int(match[1]) == number:
            own.append((match[2], value))
    yield from own
