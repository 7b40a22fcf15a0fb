"""A stream's texts, step by step: what ``{"outputs": [...]}`` lines and ``StreamingUtils`` are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bloomery.protocol.events import Event, Failure, Finish, Token


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
