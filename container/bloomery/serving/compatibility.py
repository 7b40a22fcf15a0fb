"""Which requests may be answered by one call of the handler."""

from __future__ import annotations

import json
from collections.abc import Hashable

from bloomery.protocol import private
from bloomery.protocol.frames import Request

# A larger body goes alone: looking into it would hold up the event loop, and joined it would hold up the others.
_LARGEST = 1024 * 1024
# Headers by which a handler may answer differently. Others (lengths, agents, traces) differ without consequence.
_DECISIVE = frozenset(["accept", "content-type", "model_name", "x-amzn-sagemaker-target-model"])


def key(request: Request) -> Hashable | None:
    """Equal for requests that may be joined; None for one that goes alone.

    A streamed answer belongs to one client. ``parameters`` must be the same, because DJLServing's own handlers refuse a
    batch in which they differ; so must everything else that is not the input itself.
    """
    if private.EVENTS in request.properties or len(request.content) != 1:
        return None
    name, body = request.content[0]
    if len(body) > _LARGEST:
        return None
    rest = _beside_inputs(bytes(body))
    if rest is None:
        return None
    decisive = ((k.lower(), v) for k, v in request.properties.items() if k.lower() in _DECISIVE)
    return (name, rest, tuple(sorted(decisive)))


def _beside_inputs(body: bytes) -> str | None:
    """Everything in a JSON document but its input, in one spelling; "" where the body is no JSON object."""
    if body.lstrip()[:1] != b"{":
        return ""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None  # the handler will refuse it, and that shall be nobody else's answer
    if document.get("stream"):
        return None
    document.pop("inputs", None)
    return json.dumps(document, sort_keys=True)
