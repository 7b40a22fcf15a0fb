"""One piece of an answer of a rolling batch or of an asynchronous handler: pairs of texts, counted and prefixed."""

from __future__ import annotations

import json
from dataclasses import dataclass

from bloomery.errors import ProtocolError
from bloomery.protocol.frames import Dialect, decode_bytes, decode_pairs


@dataclass(frozen=True)
class Piece:
    """``code`` is None unless the piece states one; ``error`` is empty unless the request failed."""

    data: bytes
    last: bool
    code: int | None = None
    error: str = ""

    @classmethod
    def decode(cls, content: bytes) -> Piece | None:
        """The piece in ``content``, or None if it is something else. DJLServing 0.23 had JSON in this place."""
        pairs = _from_json(content) if content[:1] == b"{" else _from_pairs(content)
        if "last" not in pairs:
            return None
        code = pairs.get("code", "")
        return cls(
            pairs.get("data", "").encode("utf-8", "surrogatepass"),
            pairs["last"].lower() == "true",
            int(code) if code.isdecimal() and len(code) < 5 else None,
            pairs.get("error", ""),
        )


def _from_pairs(content: bytes) -> dict[str, str]:
    try:
        pairs, rest = decode_bytes(decode_pairs(Dialect.INT32), content)
    except ProtocolError:
        return {}
    return {} if rest else pairs


def _from_json(content: bytes) -> dict[str, str]:
    try:
        fields = json.loads(content)
    except ValueError:
        return {}
    return {str(key): str(value) for key, value in fields.items()} if isinstance(fields, dict) else {}
