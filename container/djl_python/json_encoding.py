"""JSON as DJLServing's handlers write it: two spaces, no blanks around separators, UTF-8, NaN refused."""

from __future__ import annotations

import json
import sys
from datetime import date, datetime
from typing import Any


def encode_json(value: Any) -> bytes:
    """The bytes of ``value``. NaN and infinities raise ValueError: they are not JSON, and clients choke on them."""
    text = json.dumps(value, indent=2, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain)
    return text.encode("utf-8")


def _plain(value: Any) -> Any:
    numpy: Any = sys.modules.get("numpy")  # a value of numpy's cannot exist unless numpy is loaded
    if numpy is not None:
        if isinstance(value, numpy.ndarray):
            return value.tolist()
        if isinstance(value, numpy.generic):
            return value.item()
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
