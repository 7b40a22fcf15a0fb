"""A handler's failure, in the words and the shape in which DJLServing's clients know it."""

from __future__ import annotations

import json

from bloomery.protocol.frames import ResponseHead

FAILURE_MESSAGE = "prediction failure"  # the worker's own word for a handler that failed


def handler_failure(text: str, code: int = 424) -> ResponseHead:
    """What DJLServing answers to a handler's exception, for a failure that rank 0 does not know of."""
    body = {"code": code, "message": FAILURE_MESSAGE, "error": text}
    encoded = json.dumps(body, indent=2, separators=(",", ":")).encode()
    return ResponseHead(code, FAILURE_MESSAGE, {"content-type": "application/json"}, [("data", encoded)])


def error_text(head: ResponseHead) -> str:
    """The essence of a failed answer: the handler's own words."""
    for _, data in head.content or []:
        text = data.decode("utf-8", "replace").strip()
        try:
            fields = json.loads(text)
        except ValueError:
            return text or head.message
        if isinstance(fields, dict) and fields.get("error"):
            return str(fields["error"])
        return text
    return head.message
