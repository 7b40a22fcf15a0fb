"""Streaming as ``application/jsonlines``: one line per decode step, with the new text of every prompt."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from bloomery.formats.errors import error_line
from bloomery.protocol.events import Event, Failure, Finish, Token

CONTENT_TYPE = "application/jsonlines"


def texts_per_step(events: Iterable[Event], rows: int) -> Iterator[list[str] | Failure]:
    """The new text of every row, once per decode step; a row that is complete adds empty texts from then on.

    A step is given away with its last row's token: waiting for the next step's first token, to see that this one is
    over, would make every reader one step late. A Failure is the last item.
    """
    texts = [""] * rows
    running = set(range(rows))
    awaited = set(running)
    began = False
    for event in events:
        if isinstance(event, Failure):
            yield event
            return
        if isinstance(event, Token):
            texts[event.row] += event.text
            began = True
        if isinstance(event, Finish):
            running.discard(event.row)
        awaited.discard(event.row)
        if began and not awaited:
            yield texts
            texts = [""] * rows
            awaited = set(running)
            began = False


def steps_as_jsonlines(events: Iterable[Event], rows: int) -> Iterator[bytes]:
    """``{"outputs": [text per prompt]}`` per step, or the error record as the last line."""
    for texts in texts_per_step(events, rows):
        if isinstance(texts, Failure):
            yield error_line(texts)
        else:
            yield json.dumps({"outputs": texts}).encode() + b"\n"  # ASCII: str.splitlines also splits at U+2028
