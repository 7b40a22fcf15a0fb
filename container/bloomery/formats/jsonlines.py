"""Streaming as ``application/jsonlines``: one line per decode step, with the new text of every prompt."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from bloomery.formats.errors import error_line
from bloomery.protocol.events import Event, Failure, Finish, Token

CONTENT_TYPE = "application/jsonlines"


def steps_as_jsonlines(events: Iterable[Event], rows: int) -> Iterator[bytes]:
    """``{"outputs": [text per prompt]}`` per step; a row that is complete adds empty texts from then on.

    A line leaves with the last row's token of its step: waiting for the next step's first token, to see that this one
    is over, would make every reader one step late.
    """
    texts = [""] * rows
    running = set(range(rows))
    awaited = set(running)
    began = False
    for event in events:
        if isinstance(event, Failure):
            yield error_line(event)
            return
        if isinstance(event, Token):
            texts[event.row] += event.text
            began = True
        if isinstance(event, Finish):
            running.discard(event.row)
        awaited.discard(event.row)
        if began and not awaited:
            yield json.dumps({"outputs": texts}).encode() + b"\n"  # ASCII: str.splitlines also splits at U+2028
            texts = [""] * rows
            awaited = set(running)
            began = False
