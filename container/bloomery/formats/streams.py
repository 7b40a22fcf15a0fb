"""The bytes of a stream: which records, and how they are framed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from bloomery.errors import StreamError
from bloomery.formats.details import row_details
from bloomery.formats.errors import error_record
from bloomery.formats.steps import texts_per_step
from bloomery.formats.style import Asked, Style
from bloomery.formats.tokens import token_records
from bloomery.protocol.events import Event, Failure, Finish


def stream_answer(events: Iterable[Event], asked: Asked, style: Style) -> Iterator[bytes]:
    """The answer to one request in pieces, each made as soon as its step is. A Failure is a record of its own."""
    if style.stream_form == "text":
        yield from _bare_text(events)
        return
    records = token_records if style.shape in ("object", "tgi") else _step_records
    for record in records(events, asked, style):
        yield _framed(error_record(record) if isinstance(record, Failure) else record, style)


def _framed(record: dict[str, Any], style: Style) -> bytes:
    line = json.dumps(record).encode()  # ASCII: str.splitlines also splits at U+2028
    return b"data: " + line + b"\n\n" if style.stream_form == "sse" else line + b"\n"


def _step_records(events: Iterable[Event], asked: Asked, style: Style) -> Iterator[dict[str, Any] | Failure]:
    """``{"outputs": [new text per prompt]}`` per step. Details, when asked for, follow in a record whose texts are
    empty, so that whoever joins the texts need not know of them."""
    finishes: dict[int, Finish] = {}
    for texts in texts_per_step(_noting(events, finishes), len(asked.prompts)):
        if isinstance(texts, Failure):
            yield texts
            return
        yield {"outputs": texts}
    if asked.details:
        details = [row_details(row, finish, None, asked, style) for row, finish in sorted(finishes.items())]
        yield {"outputs": [""] * len(asked.prompts), "details": details}


def _noting(events: Iterable[Event], finishes: dict[int, Finish]) -> Iterator[Event]:
    for event in events:
        if isinstance(event, Finish):
            finishes[event.row] = event
        yield event


def _bare_text(events: Iterable[Event]) -> Iterator[bytes]:
    for texts in texts_per_step(events, 1):
        if isinstance(texts, Failure):
            raise StreamError(texts.message, texts.code)  # bare text has no place for a record
        yield texts[0].encode()
