"""Streams of tokens: one record per token; the last one has the whole text and the details."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from bloomery.formats.details import row_details, token_record
from bloomery.formats.style import Asked, Style
from bloomery.protocol.events import Event, Failure, Finish, Token


def token_records(events: Iterable[Event], asked: Asked, style: Style) -> Iterator[dict[str, Any] | Failure]:
    """``{"token": {...}}`` per token of one prompt. A Failure is the last item.

    A record is given away with its token; only the last token waits for its Finish, which is already made.
    """
    last: Token | None = None
    number = 0
    for event in events:
        if isinstance(event, Failure):
            yield event
            return
        if isinstance(event, Token):
            number += 1
            if event.last:
                last = event
            else:
                yield _record(event, None, number, asked, style)
        else:
            yield _record(last, event, number, asked, style)


def _record(token: Token | None, finish: Finish | None, number: int, asked: Asked, style: Style) -> dict[str, Any]:
    """``token`` is None when a row ends without one (it was cancelled); ``number`` counts tokens from 1."""
    record: dict[str, Any] = {"token": None if token is None else token_record(token, style)}
    text = details = None
    if finish is not None:
        text = asked.prefixes[finish.row] + finish.text
        details = row_details(finish.row, finish, None, asked, style) if asked.details else None
    if style.shape == "tgi":
        return {"index": number, **record, "generated_text": text, "details": details}
    if style.compat == "0.36":
        return {"index": 0, **record, "generated_text": text, "details": details}
    if finish is not None:
        record["generated_text"] = text
    return record if details is None else {**record, "details": details}
