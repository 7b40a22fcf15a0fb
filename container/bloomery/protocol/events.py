"""Typed events that a task emits and ``formats`` turns into answers. One event is one JSON line on the wire."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from bloomery.errors import ProtocolError

CONTENT_TYPE = "application/x-bloomery-events"  # marks an answer that holds events, for the server's own doors
FinishReason = Literal["length", "eos_token", "stop_sequence", "cancelled", "error"]


@dataclass(frozen=True)
class Token:
    """One new token of one row. ``text`` is what it adds to the row, possibly empty (half a character).

    ``last``: the row ends with it, and its Finish is the next event of this row, already made.
    """

    row: int
    id: int
    text: str
    log_prob: float | None = None
    special: bool = False  # one of the tokenizer's own marks, which is no text
    last: bool = False


@dataclass(frozen=True)
class Finish:
    """One row is complete. ``text`` is the whole generated text of the row, without its prompt."""

    row: int
    reason: FinishReason
    generated_tokens: int
    prompt_tokens: int
    text: str


@dataclass(frozen=True)
class Failure:
    """The request failed; nothing follows."""

    code: int
    message: str


Event = Token | Finish | Failure
_TYPES: dict[str, type[Token] | type[Finish] | type[Failure]] = {"token": Token, "finish": Finish, "failure": Failure}
_NAMES = {kind: name for name, kind in _TYPES.items()}


def encode_event(event: Event) -> bytes:
    """One JSON line."""
    return json.dumps({"event": _NAMES[type(event)], **asdict(event)}, ensure_ascii=False).encode() + b"\n"


def decode_event(line: bytes) -> Event:
    """The event in ``line``."""
    try:
        fields = json.loads(line)
        kind = _TYPES[fields.pop("event")]
        return kind(**fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(f"not an event: {line[:200]!r}") from error
