"""The record that tells a client why its answer ends here."""

from __future__ import annotations

import json
from typing import Any

from bloomery.protocol.events import Failure


def error_record(failure: Failure) -> dict[str, Any]:
    """``{"error": ..., "code": ...}``: the last record of a stream whose status line said 200 too early."""
    return {"error": failure.message, "code": failure.code}


def error_line(failure: Failure) -> bytes:
    """The error record as one JSON line."""
    return json.dumps(error_record(failure)).encode() + b"\n"
