"""What an answer tells about its tokens, in the words of each dialect."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bloomery.formats.style import Asked, Style
from bloomery.protocol.events import Event, Failure, Finish, Token


@dataclass
class Row:
    """One prompt's whole continuation."""

    tokens: list[Token] = field(default_factory=list)
    finish: Finish | None = None

    @property
    def text(self) -> str:
        """What was generated."""
        return "" if self.finish is None else self.finish.text


def gather(events: Iterable[Event], rows: int) -> list[Row] | Failure:
    """All events, sorted by row; the Failure, when there was one."""
    gathered = [Row() for _ in range(rows)]
    for event in events:
        if isinstance(event, Failure):
            return event
        if isinstance(event, Token):
            gathered[event.row].tokens.append(event)
        else:
            gathered[event.row].finish = event
    return gathered


def token_record(token: Token, style: Style) -> dict[str, Any]:
    """One token as an object."""
    if style.shape == "tgi":
        return {"id": token.id, "text": token.text, "logprob": token.log_prob, "special": token.special}
    if style.compat == "0.36":
        return {"id": token.id, "text": token.text, "logprob": token.log_prob}
    number = [token.id] if style.compat == "0.27" else token.id
    record = {"id": number, "text": token.text, "log_prob": token.log_prob}
    return {**record, "special_token": True} if token.special else record


def row_details(row: int, finish: Finish, tokens: Sequence[Token] | None, asked: Asked, style: Style) -> dict[str, Any]:
    """``details`` of one row. ``tokens`` is None in a stream, whose lines held them."""
    told: dict[str, Any] = {"finish_reason": finish.reason, "generated_tokens": finish.generated_tokens}
    records = None if tokens is None else [token_record(token, style) for token in tokens]
    if style.shape == "tgi" or style.compat == "0.36":
        told["seed"] = asked.seed
        rest = {"input_length": finish.prompt_tokens} if records is None else {"prefill": [], "tokens": records}
        return told | rest
    told["inputs"] = asked.prompts[row]
    return told if records is None else told | {"tokens": records}
