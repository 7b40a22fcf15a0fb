"""JSON as DJLServing's handlers write it: two spaces, no blanks around separators, UTF-8, NaN refused."""

from __future__ import annotations

import json
import sys
from datetime import date, datetime
from typing import Any


def encode_json(value: Any) -> bytes:
    """The bytes of ``value``. NaN and infinities raise ValueError: they are not JSON, and clients choke on them."""
    text = json.dumps(value, indent=2, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain)
    # A lone surrogate (from a file name that is not UTF-8, say) cannot be encoded; this writes JSON's own \\udcXX.
    return text.encode("utf-8", "backslashreplace")


def _plain(value: Any) -> Any:
    numpy: Any = sys.modules.get("numpy")  # a value of numpy's cannot exist unless numpy is loaded
    if numpy is not None:
        if isinstance(value, numpy.ndarray):
            return value.tolist()
        if isinstance(value, numpy.generic):
            return value.item()
    if isinstance(value, (date, datetime)):
        return str(value)  # "2024-01-02 03:04:05", with the blank: what DJLServing's clients parse
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
