"""The published table's row: the time to load, the latency of whole calls, and tokens/s = batch × new tokens / P50."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bloomery.bench.endpoint import statistics
from bloomery.bench.endpoint.call import Call
from bloomery.bench.endpoint.workload import Workload


def row(
    name: str, workload: Workload, calls: Sequence[Call], load_seconds: float | None, load_source: str
) -> dict[str, Any]:
    """``calls``: those that succeeded, one after the other, each not streamed."""
    wanted = workload.batch * workload.max_new_tokens
    latency = statistics.described([call.latency for call in calls])
    median = latency["p50"] / 1000 if latency else None
    counted = sorted({call.tokens for call in calls if call.counted_by})
    warnings = []
    if counted and counted != [wanted]:
        warnings.append(
            f"Answers had {counted[0]} to {counted[-1]} tokens instead of {wanted}: tokens/s counts those that were "
            "asked for. Does the endpoint know ignore_eos? See --parameter."
        )
    if not counted:
        warnings.append(f"The endpoint does not tell how many tokens it made; {wanted} were asked for.")
    return {
        "name": name,
        "batch": workload.batch,
        "new_tokens": workload.max_new_tokens,
        "load_seconds": None if load_seconds is None else round(load_seconds, 2),
        "load_seconds_from": load_source,
        "calls": len(calls),
        "latency_ms": latency,
        "tokens_per_s": round(wanted / median, 3) if median else None,
        "warnings": warnings,
    }
