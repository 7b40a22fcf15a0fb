"""Messages of a rank's control channel: one JSON object per line, over a private unix socket.

The worker protocol has no cancel, heartbeat or progress. Each of our ranks listens on the path in
``BLOOMERY_CONTROL_SOCKET``; the server connects, writes one question per line and reads one answer per line.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Literal

from bloomery.errors import ProtocolError


@dataclass(frozen=True)
class Ask:
    """``ping``: how are you; ``cancel``: stop that request; ``stack``: every thread's stack."""

    op: Literal["ping", "cancel", "stack"]
    request_id: str = ""


@dataclass(frozen=True)
class Status:
    """The answer to every question. ``steps`` grows with each sign of progress (a load step, a decoded token).

    ``tokens`` and ``prompt_tokens`` are those generated and read since the rank started; ``phases`` holds the seconds
    that each phase of the load took, once it is over.
    """

    phase: str
    percent: float
    steps: int
    tokens: int
    request_id: str
    stack: str = ""
    prompt_tokens: int = 0
    phases: dict[str, float] = field(default_factory=dict)


def encode(message: Ask | Status) -> bytes:
    """One line."""
    return json.dumps(asdict(message), separators=(",", ":")).encode() + b"\n"


def decode_ask(line: bytes) -> Ask:
    """The question in ``line``."""
    fields = _fields(line)
    op = fields.get("op")
    if op == "ping" or op == "cancel" or op == "stack":
        return Ask(op, str(fields.get("request_id", "")))
    raise ProtocolError(f"control question {op!r} is not one of ping, cancel, stack")


def decode_status(line: bytes) -> Status:
    """The answer in ``line``."""
    fields = _fields(line)
    try:
        return Status(
            str(fields["phase"]),
            float(str(fields["percent"])),
            int(str(fields["steps"])),
            int(str(fields["tokens"])),
            str(fields["request_id"]),
            str(fields.get("stack", "")),
            int(str(fields.get("prompt_tokens", 0))),
            _seconds(fields.get("phases", {})),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ProtocolError(f"control answer lacks or mangles {error}: {line[:200]!r}") from error


def _seconds(phases: object) -> dict[str, float]:
    if not isinstance(phases, dict):
        raise ValueError("phases")
    return {name: float(seconds) for name, seconds in phases.items()}


def _fields(line: bytes) -> dict[str, object]:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise ProtocolError(f"control line is not JSON: {line[:200]!r}") from error
    if not isinstance(fields, dict):
        raise ProtocolError(f"control line is not an object: {line[:200]!r}")
    return fields
