"""Bytes of an answer -> when its tokens came and how many they are, in every dialect that an endpoint may speak.

LMI's and DJLServing's (lists, objects, ``{"outputs": …}`` lines, ``{"token": …}`` lines), TGI's, OpenAI's; whole, as
JSON lines, or as server-sent events. What no dialect explains counts as text, one record per piece.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bloomery.bench.endpoint.call import Reply

TokenCounter = Callable[[str], int]


@dataclass
class Tally:
    """An answer, counted. ``texts``: what was generated, per row. ``counted_by`` says where ``tokens`` is from."""

    times: list[float] = field(default_factory=list)
    streamed: bool = False
    texts: list[str] = field(default_factory=list)
    told: list[int] = field(default_factory=list)  # generated tokens per row, as the endpoint says
    records: int = 0  # with tokens
    token_records: int = 0
    prompt_tokens: int = 0
    error: str = ""
    counted_by: str = ""
    steps: int = 0
    tokens: int = 0


def tally(reply: Reply, counter: TokenCounter | None = None) -> Tally:
    """Read ``reply``; ``counter`` counts the tokens of a text where the endpoint does not say."""
    found = Tally()
    records = list(_records(reply))
    found.streamed = len(reply.pieces) > 1 and (len(records) > 1 or _is_stream(reply.content_type))
    for moment, record in records:
        if _read(record, found):
            found.times.append(moment)
            found.records += 1
    _count(found, counter)
    return found


def _is_stream(content_type: str) -> bool:
    return any(name in content_type for name in ("jsonlines", "event-stream", "x-ndjson"))


def _records(reply: Reply) -> Iterator[tuple[float, Any]]:
    """(when its last byte came, record): decoded JSON where it is JSON, else text."""
    whole = _loaded(reply.body)
    if whole is not None and not _is_stream(reply.content_type):
        yield (reply.pieces[-1][0] if reply.pieces else 0.0), whole
    elif (
        "event-stream" in reply.content_type or "json" in reply.content_type or reply.body.startswith((b"{", b"data:"))
    ):
        for moment, line in _lines(reply.pieces):
            yield from ((moment, record) for record in _of_line(line))
    else:
        yield from ((moment, data.decode(errors="replace")) for moment, data in reply.pieces if data)


def _lines(pieces: Sequence[tuple[float, bytes]]) -> Iterator[tuple[float, bytes]]:
    rest, moment = b"", 0.0
    for moment, data in pieces:
        *lines, rest = (rest + data).split(b"\n")
        yield from ((moment, line) for line in lines)
    if rest:
        yield moment, rest


def _of_line(line: bytes) -> Iterator[Any]:
    line = line.strip()
    if line.startswith(b"data:"):
        line = line[5:].strip()
    elif line.startswith((b":", b"event:", b"id:", b"retry:")):
        return  # of server-sent events: comments that keep a connection alive, and names
    if line and line != b"[DONE]":
        record = _loaded(line)
        yield line.decode(errors="replace") if record is None else record


def _loaded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _read(record: Any, found: Tally) -> bool:
    """Take in one record; says whether it brought tokens."""
    if isinstance(record, list):
        return any([_read_row(index, each, found) for index, each in enumerate(record)])
    if not isinstance(record, dict):
        return _add(0, str(record), found)
    if "error" in record:
        found.error = _error_text(record)
        return False
    if "outputs" in record and isinstance(record["outputs"], list):
        return _read_step(record, found)
    if "choices" in record:
        return _read_choices(record, found)
    return _read_row(0, record, found)


def _error_text(record: dict[str, Any]) -> str:
    error = record["error"]
    text = error.get("message") if isinstance(error, dict) else error
    return f"{record.get('code', '')} {text}".strip()


def _read_step(record: dict[str, Any], found: Tally) -> bool:
    """``{"outputs": [new text per prompt]}``; the last one has the details, and no text."""
    details = record.get("details")
    if isinstance(details, list):
        found.told = [int(each.get("generated_tokens", 0)) for each in details]
        found.prompt_tokens += sum(int(each.get("input_length", 0)) for each in details)
        return False
    for row, text in enumerate(record["outputs"]):
        _add(row, str(text), found)
    # A step without text is half a character: tokens all the same, but nothing that a reader sees comes first.
    return found.records > 0 or any(record["outputs"])


def _read_choices(record: dict[str, Any], found: Tally) -> bool:
    """OpenAI's, whole or a chunk."""
    brought = False
    for choice in record["choices"]:
        delta = choice.get("delta") or choice.get("message") or {}
        text = delta.get("content") or delta.get("reasoning_content") or choice.get("text") or ""
        brought |= _add(int(choice.get("index", 0)), text, found)
    usage = record.get("usage")
    if isinstance(usage, dict):
        found.told = [int(usage.get("completion_tokens", 0))]
        found.prompt_tokens = int(usage.get("prompt_tokens", 0))
    return brought


def _read_row(row: int, record: Any, found: Tally) -> bool:
    """``{"token": …}`` of a stream, or ``{"generated_text": …}`` of one row."""
    if isinstance(record, list):  # DJLServing 0.20: a list per prompt
        return any([_read_row(row, each, found) for each in record])
    if not isinstance(record, dict):
        return _add(row, str(record), found)
    details = record.get("details")
    if isinstance(details, dict) and "generated_tokens" in details:
        found.told += [0] * (row + 1 - len(found.told))
        found.told[row] = int(details["generated_tokens"])
        found.prompt_tokens += int(details.get("input_length") or 0)
    if "token" in record:
        token = record["token"]
        if not isinstance(token, dict):
            return False
        found.token_records += 1
        return _add(row, str(token.get("text", "")), found) or found.records > 0
    return _add(row, str(record.get("generated_text", record.get("text", ""))), found)


def _add(row: int, text: str, found: Tally) -> bool:
    found.texts += [""] * (row + 1 - len(found.texts))
    found.texts[row] += text
    return bool(text)


def _count(found: Tally, counter: TokenCounter | None) -> None:
    rows = max(1, len(found.texts))
    if found.told:
        found.counted_by = "endpoint"
        found.tokens = sum(found.told)
        found.steps = max(found.told) if len(found.told) > 1 else -(-found.tokens // rows)
    elif found.token_records:
        found.counted_by = "token records"
        found.tokens = found.steps = found.token_records
    elif counter is not None:
        found.counted_by = "tokenizer"
        numbers = [counter(text) for text in found.texts]
        found.tokens, found.steps = sum(numbers), max(numbers, default=0)
    elif found.streamed:
        found.counted_by = "records"
        found.steps, found.tokens = found.records, found.records * rows
