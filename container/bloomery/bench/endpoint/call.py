"""What was seen of one request, in seconds of one monotonic clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What came back. ``pieces``: (when it came, bytes), as the network gave them away. ``failure``: the kind of what
    went wrong, such as "HTTP 503" or "timeout", and empty when nothing did; ``reason`` says more."""

    pieces: tuple[tuple[float, bytes], ...]
    content_type: str = ""
    failure: str = ""
    reason: str = ""

    @property
    def body(self) -> bytes:
        """All of it."""
        return b"".join(data for _, data in self.pieces)


@dataclass(frozen=True)
class Call:
    """One request. ``due`` is when it should have been sent: in an open loop its place in the schedule, in a closed
    loop the moment it was sent. ``times``: when each record of the stream came that carried tokens; of an answer that
    came whole, only its end. ``steps``: tokens of its longest row; ``tokens``: of all rows."""

    due: float
    sent: float
    done: float
    times: tuple[float, ...] = ()
    streamed: bool = False
    steps: int = 0
    tokens: int = 0
    counted_by: str = ""
    prompt_tokens: int = 0
    failure: str = ""
    reason: str = ""

    @property
    def latency(self) -> float:
        """From when it was due to the end of its answer."""
        return self.done - self.due

    @property
    def ttft(self) -> float | None:
        """Time to first token, from when it was due; None when the answer was not streamed."""
        return self.times[0] - self.due if self.streamed and self.times else None

    @property
    def tpot(self) -> float | None:
        """Time per output token after the first; None with fewer than two tokens, or without a stream."""
        if not self.streamed or self.steps < 2 or len(self.times) < 2:
            return None
        return (self.times[-1] - self.times[0]) / (self.steps - 1)

    @property
    def gaps(self) -> list[float]:
        """Between one record with tokens and the next: the inter-token latencies."""
        return [b - a for a, b in zip(self.times, self.times[1:], strict=False)] if self.streamed else []

    def relative(self, origin: float) -> dict[str, Any]:
        """For a picture: seconds since ``origin``."""
        first = self.times[0] - origin if self.streamed and self.times else None
        return {
            "due": round(self.due - origin, 5),
            "sent": round(self.sent - origin, 5),
            "first": None if first is None else round(first, 5),
            "done": round(self.done - origin, 5),
            "failure": self.failure,
        }
