"""The figures of one level.

Definitions (docs/benchmarking.md): latency and TTFT begin when a request was due; TPOT is (last - first token) /
(tokens - 1) per request; inter-token latencies are the gaps between records with tokens, of all requests together;
throughput counts what succeeded, by the time from the first request to the last answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bloomery.bench.endpoint import statistics
from bloomery.bench.endpoint.call import Call
from bloomery.bench.endpoint.goodput import Objective, good
from bloomery.bench.endpoint.load import Level
from bloomery.bench.endpoint.surroundings import Share
from bloomery.sagemaker.operating.cost import Cost, Throughput

_TIMELINE = 120  # calls that a picture shows
BUSY_OTHERS, BUSY_CLIENT = 0.1, 0.8


@dataclass(frozen=True)
class Outcome:
    """One level and all its calls, in the order in which they were due."""

    level: Level
    calls: Sequence[Call]
    share: Share

    @property
    def succeeded(self) -> list[Call]:
        """Those that were answered."""
        return [call for call in self.calls if not call.failure]

    @property
    def seconds(self) -> float:
        """From the first request to the last answer."""
        if not self.calls:
            return 0.0
        return max(call.done for call in self.calls) - min(call.due for call in self.calls)

    @property
    def errors(self) -> dict[str, dict[str, Any]]:
        """By kind: how many, and what the first one said."""
        failed = [call for call in self.calls if call.failure]
        firsts = {call.failure: call.reason for call in reversed(failed)}
        counts = Counter(call.failure for call in failed)
        return {kind: {"count": count, "first": firsts[kind]} for kind, count in counts.most_common()}

    def as_json(self, objectives: Sequence[Objective] = (), price_per_hour: float | None = None) -> dict[str, Any]:
        """Everything a report shows."""
        calls, seconds = self.succeeded, max(self.seconds, 1e-9)
        tokens = sum(call.tokens for call in calls)
        throughput = {"requests_per_s": len(calls) / seconds, "output_tokens_per_s": tokens / seconds}
        found: dict[str, Any] = {
            "load": self.level.as_json(),
            "requests": len(self.calls),
            "succeeded": len(calls),
            "errors": self.errors,
            "seconds": round(self.seconds, 4),
            "output_tokens": tokens,
            "prompt_tokens": sum(call.prompt_tokens for call in calls) or None,
            "tokens_counted_by": sorted({call.counted_by for call in calls if call.counted_by}),
            "throughput": {name: round(value, 4) for name, value in throughput.items()},
            "latency_ms": statistics.described([call.latency for call in calls]),
            "ttft_ms": statistics.described([call.ttft for call in calls if call.ttft is not None]),
            "tpot_ms": statistics.described([call.tpot for call in calls if call.tpot is not None]),
            "itl_ms": statistics.described([gap for call in calls for gap in call.gaps], independent=False),
            "late_ms": statistics.described([call.sent - call.due for call in self.calls], independent=False),
            "processor": {
                "others": self.share.others,
                "client": self.share.client,
                "server_here": self.share.server_here,
            },
            "curves": self._curves(),
            "timeline": self._timeline(),
        }
        if objectives:
            met = good(self.calls, objectives)
            found["goodput"] = {
                "objectives": {each.name: round(1000 * each.seconds, 3) for each in objectives},
                "met": met,
                "share": round(met / max(1, len(self.calls)), 4),
                "requests_per_s": round(met / seconds, 4),
            }
        if price_per_hour is not None:
            found["cost"] = cost(price_per_hour, throughput)
        return found | {"warnings": self._warnings()}

    def _curves(self) -> dict[str, list[float]]:
        calls = self.succeeded
        return {
            "latency_ms": statistics.curve([call.latency for call in calls]),
            "ttft_ms": statistics.curve([call.ttft for call in calls if call.ttft is not None]),
            "itl_ms": statistics.curve([gap for call in calls for gap in call.gaps]),
        }

    def _timeline(self) -> list[dict[str, Any]]:
        if not self.calls:
            return []
        origin = min(call.due for call in self.calls)
        return [call.relative(origin) for call in sorted(self.calls, key=lambda each: each.due)[:_TIMELINE]]

    def _warnings(self) -> list[str]:
        found = []
        count, failed = len(self.succeeded), len(self.calls) - len(self.succeeded)
        if failed:
            kinds = ", ".join(f"{each['count']} × {kind}" for kind, each in self.errors.items())
            found.append(f"{failed} of {len(self.calls)} requests failed ({kinds}); they are in no latency.")
        if count < statistics.ENOUGH:
            found.append(f"{count} answers: fewer than {statistics.ENOUGH}, so every percentile is uncertain.")
        elif count < (needed := statistics.calls_needed(99)):
            found.append(f"P99 has no upper bound with {count} answers; it takes {needed}.")
        if self.share.others > BUSY_OTHERS:
            found.append(f"Other processes took more than {BUSY_OTHERS:.0%} of this machine's processors.")
        if self.share.client > BUSY_CLIENT:
            found.append(f"The client used more than {BUSY_CLIENT:.0%} of one core: it may itself be the narrow place.")
        if any(call.counted_by == "records" for call in self.calls):
            found.append("Tokens are counted as records of the stream: the endpoint tells no number. See --tokenizer.")
        return found


def cost(price_per_hour: float, throughput: dict[str, float]) -> dict[str, float | None]:
    """In the currency of the price, while the endpoint is used as much as in this measurement."""
    told = Cost(price_per_hour, Throughput(**throughput))
    each = {
        "per_hour": told.per_hour,
        "per_thousand_requests": told.per_thousand_requests,
        "per_million_output_tokens": told.per_million_tokens,
    }
    return {name: value if value is None else round(value, 6) for name, value in each.items()}
