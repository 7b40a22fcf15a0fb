"""What the hosting service allows a request. The defaults are SageMaker's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Sources: the service model of sagemaker-runtime, and the developer guide's "How Containers Serve Requests"."""

    payload: int = 6_291_456  # bytes of an invocation's body
    inline_payload: int = 128_000  # bytes of an asynchronous invocation's own body
    invocation: float = 60.0  # seconds until the container's whole answer, or the first byte of a stream
    stream: float = 480.0  # seconds until the last byte of a stream
    asynchronous: float = 900.0  # seconds for an asynchronous invocation that names no time
    waiting: float = 21_600.0  # seconds that an asynchronous invocation may wait, if it names no time
