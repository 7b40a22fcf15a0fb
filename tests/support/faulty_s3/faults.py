"""What goes wrong, and at which requests."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

KINDS = ("latency", "rate", "error", "reset", "truncate", "stall", "flip", "replace", "expire", "wrong_region")


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    ``kind``:
    - ``latency``: the answer begins ``seconds`` later;
    - ``rate``: a body comes at so many bytes per second (``rate``), each connection for itself;
    - ``error``: ``status`` and ``code`` instead of an answer, with Retry-After when ``retry_after`` is given;
    - ``reset``: the connection is reset after ``after_bytes`` of the body, before the status line when that is None;
    - ``truncate``: the connection is closed after ``after_bytes``, as if the body ended there;
    - ``stall``: nothing comes any more after ``after_bytes``, not even the status line when that is None, for ever;
    - ``flip``: one bit is wrong in the byte at ``offset`` of the object, or at ``after_bytes`` of the body;
    - ``replace``: the object gets the content of the file ``content``, or its own with every bit flipped, once this
      answer has begun (which still is the old content: an S3 answer is one version);
    - ``expire``: the credentials of this request have expired, now and ever after;
    - ``wrong_region``: requests signed for another region than ``region`` are refused, with ``status`` 301 or 400.

    It happens to requests for ``operation`` ("GetObject"; a pattern) on ``key`` (a pattern): to ``every`` Nth of them,
    or to a random ``fraction``, not to the first ``skip``, and at most ``times`` times. A ``flip`` with an ``offset``
    counts only requests whose range holds it.
    """

    kind: str
    operation: str = "GetObject"
    key: str = "*"
    every: int = 1
    fraction: float | None = None
    skip: int = 0
    times: int | None = None
    seconds: float = 0.0
    rate: float = 0.0
    after_bytes: int | None = None
    offset: int | None = None
    status: int = 503
    code: str = "SlowDown"
    retry_after: float | None = None
    region: str = "us-east-1"
    content: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"Fault({self.kind!r}): the kinds are {', '.join(KINDS)}")

    @classmethod
    def denied(cls, operation: str = "*", key: str = "*") -> Fault:
        """The role may not do this."""
        return cls("error", operation, key, status=403, code="AccessDenied")


class Rules:
    """The faults that are set, and how often each could have happened and has."""

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self.set(faults)

    def set(self, faults: Sequence[Fault]) -> None:
        """These instead of those before; counting starts anew."""
        with self._lock:
            self._faults = tuple(faults)
            self._seen = [0] * len(faults)
            self._happened = [0] * len(faults)
            self._random = random.Random(20)

    def happening(self, operation: str, key: str, span: range | None, region: str) -> list[Fault]:
        """The faults of this request. ``span``: the bytes of the object that it asks for, None when it asks for none;
        ``region``: what it is signed for."""
        with self._lock:
            return [
                fault
                for index, fault in enumerate(self._faults)
                if self._matches(fault, operation, key, span, region) and self._happens(index, fault)
            ]

    def _matches(self, fault: Fault, operation: str, key: str, span: range | None, region: str) -> bool:
        if not (fnmatchcase(operation, fault.operation) and fnmatchcase(key, fault.key)):
            return False
        if fault.kind == "flip" and fault.offset is not None:
            return span is not None and fault.offset in span
        return fault.kind != "wrong_region" or region != fault.region

    def _happens(self, index: int, fault: Fault) -> bool:
        self._seen[index] += 1
        turn = self._seen[index] - fault.skip
        if turn <= 0 or (fault.times is not None and self._happened[index] >= fault.times):
            return False
        chosen = self._random.random() < fault.fraction if fault.fraction is not None else turn % fault.every == 0
        self._happened[index] += chosen
        return chosen
